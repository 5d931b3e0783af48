//! `ldm upscale`: a picture as many times as large as the first stage makes latents small.

use std::ops::Range;

use anyhow::Context;
use ldm_core::{Prompt, image};
use ldm_pipelines::Needs;
use serde_json::{Map, Value, json};
use tch::Tensor;

use crate::args::UpscaleArgs;
use crate::making::{Making, Subject};
use crate::model;
use crate::pictures::repeated;
use crate::progress::Talk;

pub(crate) fn run(args: &UpscaleArgs, talk: Talk) -> anyhow::Result<()> {
    let making = Making::new(&args.generate, "upscale", args.generate.num_images)?;
    let small = image::from_rgb8(&image::read(&args.image)?).unsqueeze(0);
    let model = model::open_diffusion(&args.model, None)?;
    model::check_needs(&model, &args.model, &[Needs::Picture])?;
    let [height, width] = [small.size()[2], small.size()[3]];
    model.unet.check_size([height, width]).with_context(|| args.image.display().to_string())?;
    making.run(
        &model,
        &args.model,
        1.,
        &Small { picture: small, name: args.image.display().to_string() },
        talk,
    )
}

/// A picture as large as the latent.
struct Small {
    picture: Tensor,
    name: String,
}

impl Subject for Small {
    fn prompt(&self, pictures: Range<usize>) -> anyhow::Result<Prompt> {
        Ok(Prompt { image: Some(repeated(&self.picture, pictures)), ..Prompt::default() })
    }

    fn heading(&self, _picture: usize) -> String {
        format!("upscale: {}\n", self.name)
    }

    fn json(&self, _picture: usize) -> Map<String, Value> {
        Map::from_iter([("image".to_owned(), json!(self.name))])
    }
}
