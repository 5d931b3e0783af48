//! Labeled boxes: the CSV files of OpenImages.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::path::Path;

use csv::{ReaderBuilder, StringRecord};

use ldm_core::{Error, LayoutBox, Result};

use crate::labels::boxes::{Annotations, BoxesConfig};
use crate::source::data_paths::DataPaths;

/// Columns of the annotations that are read.
const COLUMNS: [&str; 6] = ["ImageID", "LabelName", "XMin", "XMax", "YMin", "YMax"];

/// The class that CompVis numbers last; the others are in the order of their ids.
const LAST: &str = "/m/01s55n";

/// Reads OpenImages' boxes, row by row: the file of the training set has 14 million.
///
/// taming-transformers `data/annotated_objects_open_images.py`. Images without a file are left out: few have all 1.7
/// million.
pub(crate) fn read(config: &BoxesConfig, paths: &DataPaths) -> Result<Annotations> {
    let file = config.class_descriptions.as_ref().ok_or_else(|| {
        let expected = "OpenImages' class-descriptions-boxable.csv with annotations in .csv";
        Error::expected("boxes.class_descriptions", expected, "none")
    })?;
    let categories = categories(config, &paths.resolve(file)?)?;
    let numbers: HashMap<&str, i64> = categories.iter().map(|(id, _)| id.as_str()).zip(0..).collect();
    let mut boxes: BTreeMap<String, Vec<LayoutBox>> = BTreeMap::new();
    for name in &config.annotations {
        let path = paths.resolve(name)?;
        let mut reader = open(&path, true)?;
        let places = places(reader.headers().map_err(broken(&path))?, &path)?;
        let mut row = StringRecord::new();
        while reader.read_record(&mut row).map_err(broken(&path))? {
            let line = row.position().map_or(0, csv::Position::line);
            let field = |column: usize| row.get(places[column]).unwrap_or_default();
            let number = |column: usize| {
                let found = field(column).trim().parse::<f64>().ok().filter(|value| value.is_finite());
                found.ok_or_else(|| {
                    let (key, got) = (COLUMNS[column], field(column));
                    Error::data(&path, format!("line {line}: expected a number as {key}, got {got}"))
                })
            };
            let [x0, x1, y0, y1] = [number(2)?, number(3)?, number(4)?, number(5)?];
            let category = field(1);
            let category = config.category_mapping.get(category).map_or(category, String::as_str);
            let rect = [x0, y0, x1 - x0, y1 - y0];
            if let Some(&class) = numbers.get(category)
                && rect[2] * rect[3] >= config.min_object_area
            {
                boxes.entry(format!("{:0>16}", field(0))).or_default().push(LayoutBox { class, rect });
            }
        }
    }
    let counts = config.min_objects_per_image..=config.max_objects_per_image;
    boxes.retain(|_, boxes| counts.contains(&boxes.len()));
    let classes = categories.into_iter().map(|(_, name)| name).collect();
    Ok(Annotations { classes, boxes, is_part: true })
}

/// Ids and names of the classes in use, in order of their numbers.
fn categories(config: &BoxesConfig, path: &Path) -> Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    for row in open(path, false)?.into_records() {
        let row = row.map_err(broken(path))?;
        let (Some(id), Some(name)) = (row.get(0), row.get(1)) else {
            let line = row.position().map_or(0, csv::Position::line);
            return Err(Error::data(
                path,
                format!("line {line}: expected an id and a name, got {}", row.len()),
            ));
        };
        found.push((id.to_owned(), name.to_owned()));
    }
    let allowed: HashSet<&str> = config.category_allow_list.iter().map(String::as_str).collect();
    if !allowed.is_empty() {
        let known: HashSet<&str> = found.iter().map(|(_, name)| name.as_str()).collect();
        if let Some(unknown) = config.category_allow_list.iter().find(|name| !known.contains(name.as_str())) {
            let expected = format!("names of {}", path.display());
            return Err(Error::expected("boxes.category_allow_list", expected, unknown));
        }
        found.retain(|(_, name)| allowed.contains(name.as_str()));
    }
    found.retain(|(id, _)| !config.category_mapping.contains_key(id));
    found.sort_by(|(a, _), (b, _)| (a == LAST, a).cmp(&(b == LAST, b)));
    found.dedup_by(|(a, _), (b, _)| a == b);
    Ok(found)
}

fn open(path: &Path, has_headers: bool) -> Result<csv::Reader<File>> {
    let file = File::open(path).map_err(Error::io(path))?;
    Ok(ReaderBuilder::new().has_headers(has_headers).flexible(true).from_reader(file))
}

fn places(head: &StringRecord, path: &Path) -> Result<[usize; COLUMNS.len()]> {
    let mut places = [0; COLUMNS.len()];
    for (place, column) in places.iter_mut().zip(COLUMNS) {
        *place = head.iter().position(|name| name.trim() == column).ok_or_else(|| {
            let got = head.iter().collect::<Vec<_>>().join(", ");
            Error::data(path, format!("expected OpenImages' column {column}, got {got}"))
        })?;
    }
    Ok(places)
}

fn broken(path: &Path) -> impl Fn(csv::Error) -> Error {
    move |error| Error::data(path, format!("expected CSV, got {error}"))
}
