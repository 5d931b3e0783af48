//! Members of an archive: names, and links to other members.

use std::collections::{BTreeMap, HashMap};

use crate::source::store::{Stored, is_visible};

/// The files of an archive, and the members that were passed over.
#[derive(Debug, Default)]
pub(super) struct ArchiveIndex {
    pub(super) files: Vec<Stored>,
    pub(super) passed_over: Vec<String>,
}

/// Links by name, with the name of their target.
pub(super) type Links = BTreeMap<String, String>;

/// Limit of links on the way to a file, as that of Linux.
const HOPS: usize = 40;

/// Limit of the files that links to folders add, so that a few links to each other cannot fill the memory.
const LINKED: usize = 1 << 20;

impl ArchiveIndex {
    /// Adds the files that links lead to, under the names of the links, and keeps the visible files; those
    /// with `..` in their names are passed over.
    pub(super) fn follow(&mut self, links: &Links, path: &str) {
        let by_name: HashMap<&str, usize> =
            self.files.iter().enumerate().map(|(number, file)| (file.name.as_str(), number)).collect();
        let mut linked = Vec::new();
        let mut passed_over = Vec::new();
        let names = self.files.iter().map(|file| &file.name).chain(links.keys());
        for name in names.filter(|name| name.split('/').any(|part| part == "..")) {
            passed_over.push(format!("{path}/{name}: expected a name inside the archive, got one with `..`"));
        }
        for (name, target) in links.iter().filter(|(name, _)| is_visible(name)) {
            let Some(target) = resolved(target, links) else {
                passed_over
                    .push(format!("{path}/{name}: expected a link to a file, got one that leads to itself"));
                continue;
            };
            if let Some(&number) = by_name.get(target.as_str()) {
                linked.push(Stored { name: name.clone(), ..self.files[number].clone() });
                continue;
            }
            let folder = format!("{target}/");
            let inside: Vec<Stored> = self
                .files
                .iter()
                .filter_map(|file| {
                    let rest = file.name.strip_prefix(&folder)?;
                    Some(Stored { name: format!("{name}/{rest}"), ..file.clone() })
                })
                .collect();
            if inside.is_empty() || linked.len() + inside.len() > LINKED {
                let reason = if inside.is_empty() { "that the archive lacks" } else { "with too many files" };
                passed_over
                    .push(format!("{path}/{name}: expected a link to a member, got {target}, {reason}"));
                continue;
            }
            linked.extend(inside);
        }
        self.files.extend(linked);
        self.files.retain(|file| is_visible(&file.name));
        self.passed_over.extend(passed_over);
    }
}

/// Replaces links in the parts of a name by their targets; none where they lead in a circle.
fn resolved(name: &str, links: &Links) -> Option<String> {
    let mut name = name.to_owned();
    for _ in 0..HOPS {
        let ends = name.match_indices('/').map(|(end, _)| end).chain([name.len()]);
        let link = ends.into_iter().find_map(|end| Some((end, links.get(&name[..end])?)));
        let Some((end, target)) = link else { return Some(name) };
        name = format!("{target}{}", &name[end..]);
    }
    None
}

/// Decodes the name of a member: UTF-8, with every other byte as `\xNN`, so that different names stay different. Empty
/// parts and `.` are dropped.
pub(super) fn member_name(bytes: &[u8]) -> String {
    let mut name = String::new();
    for chunk in bytes.utf8_chunks() {
        name.push_str(chunk.valid());
        name.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")));
    }
    let parts: Vec<&str> = name.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    parts.join("/")
}

/// Joins the target of a symbolic link to the folder of the link; none where it leaves the archive.
pub(super) fn joined(link: &str, target: &str) -> Option<String> {
    if target.starts_with('/') {
        return None;
    }
    let mut parts: Vec<&str> = link.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => _ = parts.pop()?,
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_different() {
        assert_eq!(member_name(b"./a//b/./c.png"), "a/b/c.png");
        assert_eq!(member_name(b"/caf\xe9.png"), "caf\\xe9.png");
        assert_ne!(member_name(b"\xe9"), member_name(b"\xe8"));
    }

    #[test]
    fn links_stay_inside() {
        assert_eq!(joined("a/b/link", "../c.png").unwrap(), "a/c.png");
        assert_eq!(joined("link", "./c.png").unwrap(), "c.png");
        assert_eq!(joined("link", "../c.png"), None);
        assert_eq!(joined("link", "/etc/passwd"), None);
    }

    #[test]
    fn links_of_links_are_followed_and_circles_are_not() {
        let links: Links = [("a", "b"), ("b", "c/d"), ("c", "e"), ("x", "y"), ("y", "x")]
            .map(|(name, target)| (name.to_owned(), target.to_owned()))
            .into();
        assert_eq!(resolved("a/1.png", &links).unwrap(), "e/d/1.png");
        assert_eq!(resolved("x", &links), None);
    }
}
