//! Text to image: `cargo run --example txt2img -- MODEL "a red circle" out.png`.

use ldm::prelude::*;

fn main() -> Result<()> {
    let [model, text, out] =
        std::array::from_fn(|index| std::env::args().nth(index + 1).expect("MODEL TEXT OUT"));
    let pipeline = Pipeline::open(model)?;
    let images = pipeline.generate(&Request::text(text).seed(42))?;
    images.save(out)?;
    Ok(())
}
