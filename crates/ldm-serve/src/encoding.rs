//! Image formats of answers.

use std::io::Cursor;

use image::codecs::jpeg::JpegEncoder;
use image::codecs::webp::WebPEncoder;
use image::{DynamicImage, ImageDecoder, ImageEncoder, ImageFormat, ImageReader};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{ErrorKind, ServeError};

/// The format of an image in an answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum AnswerFormat {
    /// As it is kept, with its parameters.
    #[default]
    Png,
    /// With the parameters in its EXIF data, as AUTOMATIC1111 has them.
    #[serde(alias = "jpg")]
    Jpeg,
    /// Lossless, likewise.
    Webp,
}

impl AnswerFormat {
    /// The MIME type.
    pub(crate) fn mime(self) -> &'static str {
        match self {
            Self::Png => "image/png",
            Self::Jpeg => "image/jpeg",
            Self::Webp => "image/webp",
        }
    }

    /// The name in answers, and of files.
    pub(crate) fn extension(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::Jpeg => "jpeg",
            Self::Webp => "webp",
        }
    }

    /// A PNG in this format; `quality` is that of JPEG, 1 to 100.
    ///
    /// # Errors
    /// For bytes that are no PNG.
    pub(crate) fn encode(self, png: Vec<u8>, quality: u8) -> Result<Vec<u8>, ServeError> {
        if self == Self::Png {
            return Ok(png);
        }
        let failed = |error: image::ImageError| ServeError::new(ErrorKind::Internal, error.to_string());
        let reader = ImageReader::with_format(Cursor::new(&png), ImageFormat::Png);
        let decoder = reader.into_decoder().map_err(failed)?;
        let (width, height) = decoder.dimensions();
        let pixels = DynamicImage::from_decoder(decoder).map_err(failed)?.into_rgb8();
        let exif = parameters(&png).map(|text| user_comment(&text));
        let mut bytes = Vec::new();
        let color = image::ExtendedColorType::Rgb8;
        if self == Self::Jpeg {
            let mut encoder = JpegEncoder::new_with_quality(&mut bytes, quality.clamp(1, 100));
            exif.map(|exif| encoder.set_exif_metadata(exif));
            encoder.write_image(pixels.as_raw(), width, height, color).map_err(failed)?;
        } else {
            let mut encoder = WebPEncoder::new_lossless(&mut bytes);
            exif.map(|exif| encoder.set_exif_metadata(exif));
            encoder.write_image(pixels.as_raw(), width, height, color).map_err(failed)?;
        }
        Ok(bytes)
    }
}

/// The text `parameters` of a PNG.
pub(crate) fn parameters(png: &[u8]) -> Option<String> {
    ldm_core::PngTexts::parse(png, "image").ok()?.texts.remove("parameters")
}

/// Bytes of an image file directory of one entry: 2 + 12 + 4.
const IFD: u32 = 18;

/// EXIF data with the tag UserComment (Exif 2.3, 4.6.5: tag 0x9286 of the Exif IFD, after the character code `UNICODE`),
/// big-endian, as AUTOMATIC1111 writes it through piexif.
fn user_comment(text: &str) -> Vec<u8> {
    let mut comment = b"UNICODE\0".to_vec();
    comment.extend(text.encode_utf16().flat_map(u16::to_be_bytes));
    let mut exif = b"MM\0\x2a\0\0\0\x08".to_vec();
    // IFD 0 has one entry, the offset of the Exif IFD, which has one entry, the comment.
    let entry = |tag: u16, kind: u16, count: u32, value: u32| {
        let mut bytes = 1_u16.to_be_bytes().to_vec();
        bytes.extend([tag.to_be_bytes(), kind.to_be_bytes()].concat());
        bytes.extend([count.to_be_bytes(), value.to_be_bytes(), [0; 4]].concat());
        bytes
    };
    exif.extend(entry(0x8769, 4, 1, 8 + IFD));
    exif.extend(entry(0x9286, 7, comment.len() as u32, 8 + 2 * IFD));
    exif.extend(comment);
    exif
}
