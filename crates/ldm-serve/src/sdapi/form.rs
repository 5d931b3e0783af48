//! Requests of `txt2img` and `img2img`, with AUTOMATIC1111's defaults.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

/// A request of `txt2img`, and what `img2img` shares with it. Null is as absent; unknown fields are ignored.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub(crate) struct TextForm {
    pub(crate) prompt: String,
    pub(crate) negative_prompt: String,
    /// Names of styles, of which the server has none.
    pub(crate) styles: Vec<String>,
    /// -1 is a random one; image i has seed + i.
    pub(crate) seed: i64,
    pub(crate) subseed: i64,
    /// 0 is the noise of the seed, 1 that of the subseed.
    pub(crate) subseed_strength: f64,
    pub(crate) seed_resize_from_h: i64,
    pub(crate) seed_resize_from_w: i64,
    /// A name, or an alias, of `/sdapi/v1/samplers`.
    pub(crate) sampler_name: Option<String>,
    /// The same, where `sampler_name` is absent.
    pub(crate) sampler_index: String,
    /// A name, or a label, of `/sdapi/v1/schedulers`.
    pub(crate) scheduler: Option<String>,
    pub(crate) batch_size: i64,
    /// Times `batch_size`, the number of images.
    pub(crate) n_iter: i64,
    pub(crate) steps: i64,
    pub(crate) cfg_scale: f64,
    /// The model's own where absent.
    pub(crate) width: Option<i64>,
    pub(crate) height: Option<i64>,
    /// η of a stochastic sampler; others ignore it.
    pub(crate) eta: Option<f64>,
    pub(crate) s_churn: f64,
    pub(crate) s_noise: f64,
    pub(crate) s_min_uncond: f64,
    pub(crate) restore_faces: bool,
    pub(crate) tiling: bool,
    /// A second pass over the enlarged image.
    pub(crate) enable_hr: bool,
    pub(crate) hr_scale: f64,
    pub(crate) hr_upscaler: Option<String>,
    /// 0 is as many as in the first pass.
    pub(crate) hr_second_pass_steps: i64,
    pub(crate) hr_resize_x: i64,
    pub(crate) hr_resize_y: i64,
    pub(crate) hr_checkpoint_name: Option<String>,
    pub(crate) hr_sampler_name: Option<String>,
    pub(crate) hr_scheduler: Option<String>,
    pub(crate) hr_prompt: String,
    pub(crate) hr_negative_prompt: String,
    pub(crate) firstphase_width: i64,
    pub(crate) firstphase_height: i64,
    /// Of the second pass, or of the initial image.
    pub(crate) denoising_strength: f64,
    pub(crate) refiner_checkpoint: Option<String>,
    pub(crate) disable_extra_networks: bool,
    /// Options for this request alone.
    #[schema(value_type = Object)]
    pub(crate) override_settings: Map<String, Value>,
    pub(crate) script_name: Option<String>,
    #[schema(value_type = Object)]
    pub(crate) alwayson_scripts: Map<String, Value>,
    pub(crate) send_images: bool,
    /// Accepted; the server keeps the results of all jobs for a time.
    pub(crate) save_images: bool,
    /// The name of the job in `/internal/progress`, and in `?id_task=`.
    pub(crate) force_task_id: Option<String>,
    /// A text `parameters`, for the fields that the request leaves out.
    pub(crate) infotext: Option<String>,
}

impl Default for TextForm {
    fn default() -> Self {
        Self {
            prompt: String::new(),
            negative_prompt: String::new(),
            styles: Vec::new(),
            seed: -1,
            subseed: -1,
            subseed_strength: 0.,
            seed_resize_from_h: -1,
            seed_resize_from_w: -1,
            sampler_name: None,
            sampler_index: "Euler".to_owned(),
            scheduler: None,
            batch_size: 1,
            n_iter: 1,
            steps: 50,
            cfg_scale: 7.,
            width: None,
            height: None,
            eta: None,
            s_churn: 0.,
            s_noise: 1.,
            s_min_uncond: 0.,
            restore_faces: false,
            tiling: false,
            enable_hr: false,
            hr_scale: 2.,
            hr_upscaler: None,
            hr_second_pass_steps: 0,
            hr_resize_x: 0,
            hr_resize_y: 0,
            hr_checkpoint_name: None,
            hr_sampler_name: None,
            hr_scheduler: None,
            hr_prompt: String::new(),
            hr_negative_prompt: String::new(),
            firstphase_width: 0,
            firstphase_height: 0,
            denoising_strength: 0.75,
            refiner_checkpoint: None,
            disable_extra_networks: false,
            override_settings: Map::new(),
            script_name: None,
            alwayson_scripts: Map::new(),
            send_images: true,
            save_images: false,
            force_task_id: None,
            infotext: None,
        }
    }
}

/// The fields that `img2img` adds.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub(crate) struct ImageForm {
    /// One image, as base64 or a `data:` URL.
    #[serde(skip_serializing)]
    pub(crate) init_images: Vec<Option<String>>,
    /// 0 stretches, 1 crops, 2 repeats the border, to the width and height.
    pub(crate) resize_mode: i64,
    /// White is sampled anew.
    #[serde(skip_serializing)]
    pub(crate) mask: Option<String>,
    /// Pixels over which the sampled part fades into the image, across the border of the mask.
    pub(crate) mask_blur: Option<i64>,
    pub(crate) mask_blur_x: Option<i64>,
    pub(crate) mask_blur_y: Option<i64>,
    /// The content under the mask at first: 0 the colors around it, 1 the image.
    pub(crate) inpainting_fill: i64,
    /// Only the part of the image around the mask is sampled, at the width and height, and put back.
    pub(crate) inpaint_full_res: bool,
    /// Pixels around the mask in that part.
    pub(crate) inpaint_full_res_padding: i64,
    /// 1 samples black anew.
    pub(crate) inpainting_mask_invert: i64,
    pub(crate) initial_noise_multiplier: f64,
    /// True for an answer whose `parameters` have the images.
    pub(crate) include_init_images: bool,
}

impl Default for ImageForm {
    fn default() -> Self {
        Self {
            init_images: Vec::new(),
            resize_mode: 0,
            mask: None,
            mask_blur: None,
            mask_blur_x: None,
            mask_blur_y: None,
            inpainting_fill: 0,
            inpaint_full_res: true,
            inpaint_full_res_padding: 0,
            inpainting_mask_invert: 0,
            initial_noise_multiplier: 1.,
            include_init_images: false,
        }
    }
}

impl ImageForm {
    /// The fields.
    pub(crate) const KEYS: [&str; 12] = [
        "init_images",
        "resize_mode",
        "mask",
        "mask_blur",
        "mask_blur_x",
        "mask_blur_y",
        "inpainting_fill",
        "inpaint_full_res",
        "inpaint_full_res_padding",
        "inpainting_mask_invert",
        "initial_noise_multiplier",
        "include_init_images",
    ];
}

/// The pixels of a blurred mask where a request says nothing.
const BLUR: i64 = 4;

impl ImageForm {
    /// The blur along x and y.
    pub(crate) fn blur(&self) -> [i64; 2] {
        match (self.mask_blur, self.mask_blur_x, self.mask_blur_y) {
            (Some(both), ..) => [both; 2],
            (None, x, y) => [x.unwrap_or(BLUR), y.unwrap_or(BLUR)],
        }
    }
}
