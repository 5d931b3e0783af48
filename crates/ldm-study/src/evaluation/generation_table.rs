//! The table of an evaluation of generated images.

use std::fmt::Write;

use serde_json::Value;

/// Formats the document of an evaluation as lines of text: the sets, then a line per metric.
pub fn generation_table(document: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or("an unnamed set").to_owned();
    let generated = document["made"].as_str().map_or_else(
        || format!("{}, seed {}", text(&document["sampling"]["model"]), document["sampling"]["seed"]),
        ToOwned::to_owned,
    );
    let mut table = format!("{} generated images ({generated})\n", document["made_images"]);
    let mut line = |text: String| writeln!(table, "{text}").expect("a text in memory");
    match document["images"].as_i64() {
        Some(images) => line(format!("{images} real images ({})", text(&document["dataset"]))),
        None => line(format!("real images: {}", text(&document["statistics"]))),
    }
    line(format!("{:<24} {}", "features", text(&document["features"])));
    for name in ["frechet_distance", "spatial_frechet_distance", "precision", "recall", "density", "coverage"]
    {
        if let Some(value) = document[name].as_f64() {
            line(format!("{name:<24} {value:.4}"));
        }
    }
    for name in ["kernel_distance", "inception_score", "nearest_real"] {
        if let (Some(mean), Some(std)) = (document[name]["mean"].as_f64(), document[name]["std"].as_f64()) {
            line(format!("{name:<24} {mean:.6} +- {std:.6}"));
        }
    }
    table
}
