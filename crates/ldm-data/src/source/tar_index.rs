//! Members of a tar.

use std::fs::File;
use std::io::{self, Seek};
use std::os::unix::fs::FileExt;
use std::path::Path;

use ldm_core::{Error, Result};
use tar::{Archive, Entry, EntryType, GnuExtSparseHeader};

use crate::source::archive::{ArchiveIndex, Links, joined, member_name};
use crate::source::nested_tar;
use crate::source::store::{Content, Piece, Stored};

/// Alignment of the headers and files of a tar, in bytes.
const BLOCK: u64 = 512;

/// Limit of the pieces of a sparse file.
const PIECES: usize = 1 << 16;

/// Lists the files of a tar, and those of the tars in it. Hard and symbolic links are followed inside the archive.
pub(super) fn read(file: &File, path: &Path) -> Result<ArchiveIndex> {
    let broken = |error: io::Error| Error::format(path, format!("expected a tar archive, got {error}"));
    let length = file.metadata().map_err(Error::io(path))?.len();
    (&mut &*file).rewind().map_err(Error::io(path))?;
    let mut archive = Archive::new(file);
    let mut index = ArchiveIndex::default();
    let mut links = Links::new();
    let mut end = 0;
    for entry in archive.entries_with_seek().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        let member = Member::of(&mut entry, file).map_err(broken)?;
        end = member.end;
        if end > length {
            return Err(Error::format(
                path,
                format!(
                    "expected a whole archive, got {length} bytes of at least {end}, the end of `{}`",
                    member.name.escape_debug()
                ),
            ));
        }
        let place = format!("{}/{}", path.display(), member.name);
        match member.kind {
            MemberKind::File { size, content } => {
                // A file takes the place of a link of its name, as when it is unpacked.
                links.remove(&member.name);
                match content {
                    Content::Plain { offset } if nested_tar::is_tar(&member.name) && size > 0 => {
                        index
                            .files
                            .extend(nested_tar::read(file, &member.name, offset, size).map_err(broken)?);
                    }
                    content => index.files.push(Stored { name: member.name, size, content }),
                }
            }
            MemberKind::Link(Some(target)) if target != member.name => {
                links.insert(member.name, target);
            }
            MemberKind::Link(None) => {
                let reason = "expected a link inside the archive, got one that leaves it";
                index.passed_over.push(format!("{place}: {reason}"));
            }
            MemberKind::Special(what) => {
                index.passed_over.push(format!("{place}: expected a file or a folder, got {what}"));
            }
            MemberKind::Link(Some(_)) | MemberKind::Other => {}
        }
    }
    // An archive ends in blocks of zeros. One truncated between two files would only seem smaller.
    if length < end.next_multiple_of(BLOCK) + BLOCK {
        return Err(Error::format(
            path,
            format!("expected a whole archive, got no end-of-archive mark at byte {length}"),
        ));
    }
    index.follow(&links, &path.display().to_string());
    Ok(index)
}

/// A member of a tar.
struct Member {
    name: String,
    kind: MemberKind,
    /// End of its bytes in the archive.
    end: u64,
}

enum MemberKind {
    File {
        size: u64,
        content: Content,
    },
    /// A link to a member; none where it leaves the archive.
    Link(Option<String>),
    Special(&'static str),
    /// A folder, or a kind that holds no data of its own.
    Other,
}

impl Member {
    fn of(entry: &mut Entry<'_, &File>, file: &File) -> io::Result<Self> {
        let name = member_name(&entry.path_bytes());
        let (offset, size) = (entry.raw_file_position(), entry.size());
        let plain = offset.checked_add(size).ok_or_else(|| io::Error::other("a size beyond the archive"))?;
        if let Some(pax) = PaxSparse::of(entry)? {
            let stored =
                Stored { name: pax.name.unwrap_or(name), size: pax.size, content: Content::Separate };
            let pieces = match pax.map {
                Some(map) => pieces(&map, offset)?,
                None => pax_map(file, offset, plain)?,
            };
            check(&pieces, stored.size, plain)?;
            let kind = MemberKind::File { size: stored.size, content: Content::Sparse(pieces) };
            return Ok(Self { name: stored.name, kind, end: plain });
        }
        let kind = entry.header().entry_type();
        let target = |entry: &Entry<'_, &File>| entry.link_name_bytes().map(std::borrow::Cow::into_owned);
        let (kind, end) = match kind {
            EntryType::GNUSparse => {
                let (pieces, end) = gnu_pieces(entry, file)?;
                check(&pieces, size, end)?;
                (MemberKind::File { size, content: Content::Sparse(pieces) }, end)
            }
            EntryType::Regular | EntryType::Continuous => {
                (MemberKind::File { size, content: Content::Plain { offset } }, plain)
            }
            EntryType::Link => (MemberKind::Link(target(entry).map(|target| member_name(&target))), plain),
            EntryType::Symlink => {
                let target = target(entry).and_then(|target| {
                    // By parts, since `..` would be dropped with `.` by the name of a member.
                    joined(&name, &escaped(&target))
                });
                (MemberKind::Link(target), plain)
            }
            EntryType::Fifo => (MemberKind::Special("a FIFO"), plain),
            EntryType::Char | EntryType::Block => (MemberKind::Special("a device"), plain),
            _ => (MemberKind::Other, plain),
        };
        Ok(Self { name, kind, end })
    }
}

/// Escapes the bytes of a target as [`member_name`] does, without dropping parts.
fn escaped(target: &[u8]) -> String {
    target
        .split(|&byte| byte == b'/')
        .map(|part| if part == b"." { ".".to_owned() } else { member_name(part) })
        .collect::<Vec<_>>()
        .join("/")
}

/// Reads the map of a sparse file in the headers of GNU tar, and the end of its bytes.
fn gnu_pieces(entry: &Entry<'_, &File>, file: &File) -> io::Result<(Vec<Piece>, u64)> {
    let header =
        entry.header().as_gnu().ok_or_else(|| io::Error::other("a sparse file without GNU's header"))?;
    let mut map = Vec::new();
    let mut add = |block: &tar::GnuSparseHeader| -> io::Result<()> {
        if !block.is_empty() {
            map.push((block.offset()?, block.length()?));
        }
        if map.len() > PIECES { Err(io::Error::other("a sparse file of too many pieces")) } else { Ok(()) }
    };
    header.sparse.iter().try_for_each(&mut add)?;
    let mut offset = entry.raw_file_position();
    let mut more = header.is_extended();
    while more {
        let mut extension = GnuExtSparseHeader::new();
        file.read_exact_at(extension.as_mut_bytes(), offset)?;
        offset += BLOCK;
        extension.sparse.iter().try_for_each(&mut add)?;
        more = extension.is_extended();
    }
    let pieces = pieces(&map, offset)?;
    let end = pieces.last().map_or(offset, |last| last.offset + last.length);
    Ok((pieces, end))
}

/// A sparse file in pax headers, formats 0.0, 0.1 and 1.0 of GNU tar.
#[derive(Default)]
struct PaxSparse {
    name: Option<String>,
    size: u64,
    /// Offsets and lengths; none where they come before the data (format 1.0).
    map: Option<Vec<(u64, u64)>>,
}

impl PaxSparse {
    fn of(entry: &mut Entry<'_, &File>) -> io::Result<Option<Self>> {
        let Some(extensions) = entry.pax_extensions()? else { return Ok(None) };
        let mut found = Self::default();
        let (mut is_sparse, mut listed) = (false, Vec::new());
        for extension in extensions {
            let extension = extension?;
            let Some(key) = extension.key().ok().and_then(|key| key.strip_prefix("GNU.sparse.")) else {
                continue;
            };
            is_sparse = true;
            let value = extension.value_bytes();
            match key {
                "name" => found.name = Some(member_name(value)),
                "size" | "realsize" => found.size = number(value)?,
                "map" => {
                    listed = value.split(|&byte| byte == b',').map(number).collect::<io::Result<_>>()?;
                }
                "offset" | "numbytes" => listed.push(number(value)?),
                _ => {}
            }
        }
        if !is_sparse {
            return Ok(None);
        }
        if !listed.is_empty() {
            let (pairs, _) = listed.as_chunks::<2>();
            found.map = Some(pairs.iter().map(|&[at, length]| (at, length)).collect());
        }
        Ok(Some(found))
    }
}

fn number(digits: &[u8]) -> io::Result<u64> {
    let number = std::str::from_utf8(digits).ok().and_then(|digits| digits.trim().parse().ok());
    number.ok_or_else(|| io::Error::other("a sparse file whose map is not of numbers"))
}

/// Reads the map before the data of a sparse file of format 1.0: lines of numbers, filled up to a block.
fn pax_map(file: &File, offset: u64, end: u64) -> io::Result<Vec<Piece>> {
    let short = || io::Error::other("a sparse file without a whole map");
    let length = end.saturating_sub(offset).min(32 * PIECES as u64) as usize;
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, offset)?;
    let mut read = 0;
    let mut next = || {
        let line = bytes[read..].iter().position(|&byte| byte == b'\n').ok_or_else(short)?;
        let found = number(&bytes[read..read + line])?;
        read += line + 1;
        Ok::<_, io::Error>(found)
    };
    let count = next()?;
    let mut map = Vec::new();
    for _ in 0..count {
        map.push((next()?, next()?));
    }
    pieces(&map, offset + (read as u64).next_multiple_of(BLOCK))
}

/// Places the pieces of a map one after the other in the archive.
fn pieces(map: &[(u64, u64)], mut offset: u64) -> io::Result<Vec<Piece>> {
    let mut pieces = Vec::new();
    for &(at, length) in map.iter().filter(|(_, length)| *length > 0) {
        pieces.push(Piece { at, offset, length });
        offset = offset.checked_add(length).ok_or_else(|| io::Error::other("a piece beyond the archive"))?;
    }
    Ok(pieces)
}

/// Checks that the pieces of a file of `size` lie in it, in order, and before the `end` of its bytes in the archive.
fn check(pieces: &[Piece], size: u64, end: u64) -> io::Result<()> {
    let mut from = 0;
    for piece in pieces {
        let to = piece.at.checked_add(piece.length).filter(|&to| to <= size && piece.at >= from);
        from = to.ok_or_else(|| io::Error::other("a piece outside of its sparse file"))?;
        if piece.offset + piece.length > end {
            return Err(io::Error::other("a piece beyond its sparse file"));
        }
    }
    Ok(())
}
