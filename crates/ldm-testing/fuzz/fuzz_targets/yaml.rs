#![no_main]

use ldm_core::config::{merge, parse, to_text};
use ldm_data::DatasetConfig;
use ldm_fuzz::bounded;
use ldm_pipelines::ModelConfig;

// A text, and from its last line on that is `%` an override.
libfuzzer_sys::fuzz_target!(|text: &str| {
    let (config, assignment) = text.rsplit_once("\n%\n").map_or((text, None), |(a, b)| (a, Some(b.to_owned())));
    // An override without `=` is the path of a file.
    let overrides: Vec<String> = assignment.into_iter().filter(|text| text.contains('=')).collect();
    if let Some(tree) = bounded(text.len(), || merge(config, "f.yaml", &overrides)) {
        to_text(&tree);
    }
    bounded(text.len(), || parse::<ModelConfig>(config, "f.yaml", &overrides));
    bounded(text.len(), || parse::<DatasetConfig>(config, "f.yaml", &overrides));
});
