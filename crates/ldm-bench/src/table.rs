//! Tables of timings.

use crate::{Roofline, StageTiming, shape_text};

/// Smallest share of a stage's time of the operations in the table.
const SHARE: f64 = 0.01;

/// One line per stage, as text.
pub fn stage_table(timed: &[StageTiming]) -> String {
    let mut rows = vec![words(&[
        "stage",
        "shape",
        "median s",
        "min s",
        "images/s",
        "steps/s",
        "M params",
        "weights GB",
        "GFLOP",
        "moved GB",
        "GFLOP/s",
        "of product",
        "roof s",
        "peak GB",
    ])];
    for stage in timed {
        rows.push(vec![
            stage.stage.to_owned(),
            shape_text(&stage.shape),
            seconds(stage.median_seconds),
            seconds(stage.min_seconds),
            rate(stage.images_per_second),
            stage.steps_per_second.map_or_else(|| "-".into(), rate),
            format!("{:.2}", stage.parameters as f64 / 1e6),
            giga(stage.weight_bytes as f64),
            giga(stage.flop as f64),
            giga(stage.bytes as f64),
            rate(stage.flop_per_second / 1e9),
            format!("{:.0} %", 100. * stage.of_matrix_product),
            seconds(stage.roof_seconds),
            if stage.peak_memory == 0 { "?".into() } else { giga(stage.peak_memory as f64) },
        ]);
    }
    lines(&rows, 2)
}

/// The most expensive operations of a stage, with their time on the machine's roofline, as text.
pub fn operation_table(stage: &StageTiming, machine: &Roofline) -> String {
    let mut rows =
        vec![words(&["operation", "calls", "s", "of all", "GFLOP", "moved GB", "roof s", "bound by"])];
    let cost = |at: usize| stage.operations[at].seconds.unwrap_or(stage.operations[at].roof_seconds);
    let all: f64 = (0..stage.operations.len()).map(cost).sum();
    for (at, each) in stage.operations.iter().enumerate().take_while(|(at, _)| cost(*at) >= SHARE * all) {
        let bound = match (machine.roof(each.flop, 0), machine.roof(0, each.bytes)) {
            (0., 0.) => "-", // a view
            (arithmetic, memory) if arithmetic >= memory => "arithmetic",
            _ => "memory",
        };
        rows.push(vec![
            each.name.clone(),
            each.calls.to_string(),
            each.seconds.map_or_else(|| "-".into(), seconds),
            format!("{:.0} %", 100. * cost(at) / all),
            giga(each.flop as f64),
            giga(each.bytes as f64),
            seconds(each.roof_seconds),
            bound.to_owned(),
        ]);
    }
    format!("{} {}\n{}", stage.stage, shape_text(&stage.shape), lines(&rows, 1))
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(ToString::to_string).collect()
}

/// Aligns columns: the first `left` to the left, the others to the right.
fn lines(rows: &[Vec<String>], left: usize) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let cell = |(column, text): (usize, &String)| {
        let width = width(column);
        if column < left { format!("{text:<width$}") } else { format!("{text:>width$}") }
    };
    let line = |row: &Vec<String>| {
        let cells: Vec<String> = row.iter().enumerate().map(cell).collect();
        format!("{}\n", cells.join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

fn giga(value: f64) -> String {
    let value = value / 1e9;
    if value >= 100. { format!("{value:.0}") } else { format!("{value:.3}") }
}

fn seconds(value: f64) -> String {
    if value >= 10. { format!("{value:.1}") } else { format!("{value:.4}") }
}

fn rate(value: f64) -> String {
    if value >= 100. { format!("{value:.0}") } else { format!("{value:.3}") }
}
