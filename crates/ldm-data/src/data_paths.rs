//! Lookup of the relative paths in a config.

use std::path::{Path, PathBuf};

use ldm_core::{Error, Result};

use crate::shards::expand;

/// The environment variable that names the folder of the image sets.
pub const DATA_FOLDER: &str = "LDM_DATA";

/// The places where a relative data path is looked up: the config's folder, the current folder, and the folder
/// `LDM_DATA` where that variable is set. The first place where the path exists counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataPaths {
    beside: PathBuf,
    data: Option<PathBuf>,
}

impl DataPaths {
    /// The places for a config in the folder `beside`.
    pub fn new(beside: &Path) -> Self {
        let data = std::env::var_os(DATA_FOLDER).filter(|folder| !folder.is_empty());
        Self { beside: beside.to_path_buf(), data: data.map(PathBuf::from) }
    }

    /// Finds a file, a folder, or a pattern of shards (`a-{000..003}.tar`), which is where its first shard is.
    pub fn find(&self, path: &str) -> Option<PathBuf> {
        let first = expand(path).ok().and_then(|shards| shards.into_iter().next())?;
        let there = |(place, shard): &(PathBuf, PathBuf)| shard.exists().then(|| place.clone());
        let places = self.places(path.as_ref()).into_iter().zip(self.places(first.as_ref()));
        places.collect::<Vec<_>>().iter().find_map(there)
    }

    /// The place of a file or a folder. An absolute path stays as it is.
    ///
    /// # Errors
    /// [`Error::Data`] with every place where a relative path was looked up.
    pub(crate) fn resolve(&self, path: impl AsRef<Path>) -> Result<PathBuf> {
        let path = path.as_ref();
        let places = self.places(path);
        if path.is_absolute() {
            return Ok(path.to_path_buf());
        }
        if let Some(place) = places.iter().find(|place| place.exists()) {
            return Ok(place.clone());
        }
        let tried: Vec<String> = places.iter().map(|place| place.display().to_string()).collect();
        let hint = if self.data.is_some() {
            format!(" ({DATA_FOLDER})")
        } else {
            format!("; try {DATA_FOLDER}=FOLDER, the folder that holds it")
        };
        Err(Error::data(path, format!("expected a file or a folder, got nothing at {}{hint}", tried.join(", "))))
    }

    fn places(&self, path: &Path) -> Vec<PathBuf> {
        let mut places = vec![self.beside.join(path)];
        if !["", "."].map(Path::new).contains(&&*self.beside) {
            places.push(path.to_path_buf());
        }
        places.extend(self.data.as_ref().map(|data| data.join(path)));
        places
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_config_s_folder_comes_before_the_data_folder() {
        let folder = tempfile::tempdir().unwrap();
        let [beside, data] = ["config", "data"].map(|name| folder.path().join(name));
        let paths = DataPaths { beside: beside.clone(), data: Some(data.clone()) };
        fs::create_dir_all(data.join("set")).unwrap();
        fs::create_dir(&beside).unwrap();
        assert_eq!(paths.find("set"), Some(data.join("set")));
        assert_eq!(paths.resolve("set").unwrap(), data.join("set"));
        fs::create_dir(beside.join("set")).unwrap();
        assert_eq!(paths.resolve("set").unwrap(), beside.join("set"));
        assert_eq!(paths.find("src"), Some("src".into()), "the current folder, the crate's");
        assert_eq!(paths.resolve("src").unwrap(), Path::new("src"));
        let absolute = folder.path().join("none");
        assert_eq!(paths.resolve(&absolute).unwrap(), absolute, "whoever opens it names it");
    }

    #[test]
    fn a_pattern_is_where_its_first_shard_is() {
        let folder = tempfile::tempdir().unwrap();
        let paths = DataPaths { beside: "elsewhere".into(), data: Some(folder.path().to_path_buf()) };
        assert_eq!(paths.find("a-{08..10}.tar"), None);
        fs::write(folder.path().join("a-08.tar"), "").unwrap();
        assert_eq!(paths.find("a-{08..10}.tar"), Some(folder.path().join("a-{08..10}.tar")));
        assert_eq!(paths.find("a-{x}.tar"), None);
    }

    #[test]
    fn every_place_is_named_in_the_error() {
        let error = |data: Option<&str>| {
            let paths = DataPaths { beside: "configs".into(), data: data.map(PathBuf::from) };
            paths.resolve("set/a.tar").unwrap_err().to_string()
        };
        assert_eq!(
            error(None),
            "set/a.tar: expected a file or a folder, got nothing at configs/set/a.tar, set/a.tar; \
             try LDM_DATA=FOLDER, the folder that holds it"
        );
        assert_eq!(
            error(Some("/no/data")),
            "set/a.tar: expected a file or a folder, got nothing at configs/set/a.tar, set/a.tar, \
             /no/data/set/a.tar (LDM_DATA)"
        );
        let here = DataPaths { beside: PathBuf::new(), data: None };
        assert!(here.resolve("a.tar").unwrap_err().to_string().contains("got nothing at a.tar; try"));
    }
}
