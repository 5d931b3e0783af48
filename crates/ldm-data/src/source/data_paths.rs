//! Lookup of the relative paths in a config.

use std::path::{Path, PathBuf};

use ldm_core::{Error, Result};

use crate::source::shards::expand;

/// The environment variable that names the folder of the image sets.
pub const DATA_FOLDER: &str = "LDM_DATA";

/// Search path of relative data paths: the config's folder, the current folder, and the folder `LDM_DATA` where that
/// variable is set, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataPaths {
    config_folder: PathBuf,
    data_folder: Option<PathBuf>,
}

impl DataPaths {
    /// Creates the search path of a config in the folder `config_folder`.
    pub fn new(config_folder: &Path) -> Self {
        let data_folder = std::env::var_os(DATA_FOLDER).filter(|folder| !folder.is_empty());
        Self { config_folder: config_folder.to_path_buf(), data_folder: data_folder.map(PathBuf::from) }
    }

    /// Finds a file, a folder, or a pattern of shards (`a-{000..003}.tar`) by its first shard.
    pub fn find(&self, path: &str) -> Option<PathBuf> {
        if let Some(place) = self.places(path.as_ref()).into_iter().find(|place| place.exists()) {
            return Some(place);
        }
        let first = expand(path).ok()?.into_iter().next()?;
        let exists = self.places(first.as_ref()).iter().position(|place| place.exists())?;
        Some(self.places(path.as_ref()).swap_remove(exists))
    }

    /// Finds the paths of a pattern of shards; one path where it names a file or a folder as it is.
    ///
    /// # Errors
    /// [`Error::Data`] as of [`DataPaths::resolve`], and for what only a shell or a browser reads;
    /// [`Error::Invalid`] for braces that are no pattern.
    pub(crate) fn expand(&self, pattern: &str) -> Result<Vec<PathBuf>> {
        if self.places(pattern.as_ref()).iter().any(|place| place.exists()) {
            return Ok(vec![self.resolve(pattern)?]);
        }
        if pattern.split_once("://").is_some_and(|(scheme, _)| scheme.chars().all(char::is_alphanumeric)) {
            return Err(Error::data(pattern, "expected a path, got a URL; try downloading it first"));
        }
        if pattern.starts_with('~') {
            let message = "expected a path, got `~`, which only a shell replaces; try the whole path of the home folder";
            return Err(Error::data(pattern, message));
        }
        expand(pattern)?.into_iter().map(|path| self.resolve(path)).collect()
    }

    /// Finds a file or a folder. An absolute path is returned unchanged.
    ///
    /// # Errors
    /// [`Error::Data`] with every place where a relative path was looked up.
    pub(crate) fn resolve(&self, path: impl AsRef<Path>) -> Result<PathBuf> {
        let path = path.as_ref();
        if path.is_absolute() {
            return Ok(path.to_path_buf());
        }
        let places = self.places(path);
        if let Some(place) = places.iter().find(|place| place.exists()) {
            return Ok(place.clone());
        }
        let tried: Vec<String> = places.iter().map(|place| place.display().to_string()).collect();
        let hint = if self.data_folder.is_some() {
            format!(" ({DATA_FOLDER})")
        } else {
            format!("; try {DATA_FOLDER}=FOLDER, the folder that holds it")
        };
        Err(Error::data(
            path,
            format!("expected a file or a folder, got nothing at {}{hint}", tried.join(", ")),
        ))
    }

    fn places(&self, path: &Path) -> Vec<PathBuf> {
        let mut places = vec![self.config_folder.join(path)];
        if !["", "."].map(Path::new).contains(&&*self.config_folder) {
            places.push(path.to_path_buf());
        }
        places.extend(self.data_folder.as_ref().map(|folder| folder.join(path)));
        places
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_folder_of_the_config_comes_before_the_data_folder() {
        let folder = tempfile::tempdir().unwrap();
        let [config, data] = ["config", "data"].map(|name| folder.path().join(name));
        let paths = DataPaths { config_folder: config.clone(), data_folder: Some(data.clone()) };
        fs::create_dir_all(data.join("set")).unwrap();
        fs::create_dir(&config).unwrap();
        assert_eq!(paths.find("set"), Some(data.join("set")));
        assert_eq!(paths.resolve("set").unwrap(), data.join("set"));
        fs::create_dir(config.join("set")).unwrap();
        assert_eq!(paths.resolve("set").unwrap(), config.join("set"));
        assert_eq!(paths.find("src"), Some("src".into()), "the current folder, the crate's");
        assert_eq!(paths.resolve("src").unwrap(), Path::new("src"));
        let absolute = folder.path().join("none");
        assert_eq!(paths.resolve(&absolute).unwrap(), absolute, "whoever opens it names it");
    }

    #[test]
    fn a_pattern_is_found_by_its_first_shard() {
        let folder = tempfile::tempdir().unwrap();
        let paths =
            DataPaths { config_folder: "elsewhere".into(), data_folder: Some(folder.path().to_path_buf()) };
        assert_eq!(paths.find("a-{08..10}.tar"), None);
        fs::write(folder.path().join("a-08.tar"), "").unwrap();
        assert_eq!(paths.find("a-{08..10}.tar"), Some(folder.path().join("a-{08..10}.tar")));
        assert_eq!(paths.find("a-{x}.tar"), None);
    }

    #[test]
    fn every_place_is_named_in_the_error() {
        let error = |data: Option<&str>| {
            let paths = DataPaths { config_folder: "configs".into(), data_folder: data.map(PathBuf::from) };
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
        let here = DataPaths { config_folder: PathBuf::new(), data_folder: None };
        assert!(here.resolve("a.tar").unwrap_err().to_string().contains("got nothing at a.tar; try"));
    }
}
