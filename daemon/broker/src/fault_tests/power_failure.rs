//! What a power failure may leave of a [`MemoryDisk`]: every legal state, chosen by a seed.
//!
//! Kept for certain are the bytes and the size of a file up to its last sync, and the names of a directory up to its
//! last sync. Of what came after, in any combination:
//! - each page of 4096 bytes is that of any moment since, and may be torn between two of them at any sector of 512;
//! - a file has any size it had since, or grew part of the way; what was not written of it is zeros;
//! - each name created, renamed or removed is so or not yet; a rename is both its names or neither.
//!
//! So a file may be missing although its bytes were synced, and a directory with all that is in it.

use std::collections::{BTreeMap, HashMap, HashSet};

use fastrand::Rng;

use super::memory_disk::{Event, MemoryDisk, Moment, Node, NodeId, ROOT};

const PAGE: usize = 4096;
const SECTOR: usize = 512;

/// How much of what was not synced is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kept {
    All,
    Nothing,
    /// All names, and of the bytes none.
    Names,
    /// Any of it.
    Some,
}

impl Kept {
    pub(super) const EACH: [Self; 4] = [Self::All, Self::Nothing, Self::Names, Self::Some];
}

/// Goes through a history, knowing at each moment what is durable and what is not.
pub(super) struct Replay<'h> {
    history: &'h [Event],
    at: Moment,
    images: Vec<Image<'h>>,
}

enum Image<'h> {
    File(FileImage<'h>),
    Dir(DirImage<'h>),
}

#[derive(Default)]
struct FileImage<'h> {
    durable: Vec<u8>,
    /// The size with all changes.
    size: u64,
    /// What is not durable, in order.
    changes: Vec<(Moment, Change<'h>)>,
}

#[derive(Clone, Copy)]
enum Change<'h> {
    /// Bytes within one page.
    Bytes {
        at: usize,
        bytes: &'h [u8],
        /// A sync failed after this: a later one does not write it.
        forgotten: bool,
    },
    Size(u64),
}

struct DirImage<'h> {
    durable: BTreeMap<&'h str, NodeId>,
    /// The names with all changes.
    names: BTreeMap<&'h str, NodeId>,
    changes: Vec<(Moment, NameChange<'h>)>,
}

#[derive(Clone, Copy)]
enum NameChange<'h> {
    Created(&'h str, NodeId),
    Removed(&'h str, NodeId),
    Renamed(&'h str, &'h str, NodeId),
}

impl<'h> Replay<'h> {
    /// Begins with what [`MemoryDisk::history`] answered.
    pub(super) fn new(base: &'h [Node], history: &'h [Event]) -> Self {
        let image = |node: &'h Node| match node {
            Node::File(bytes) => Image::File(FileImage {
                durable: bytes.clone(),
                size: bytes.len() as u64,
                changes: Vec::new(),
            }),
            Node::Dir(names) => {
                let names: BTreeMap<_, _> = names.iter().map(|(name, id)| (name.as_str(), *id)).collect();
                Image::Dir(DirImage {
                    durable: names.clone(),
                    names,
                    changes: Vec::new(),
                })
            }
        };
        Self {
            history,
            at: 0,
            images: base.iter().map(image).collect(),
        }
    }

    /// Goes on to a later moment.
    pub(super) fn advance(&mut self, to: Moment) {
        assert!(to >= self.at);
        while self.at < to {
            let (at, event) = (self.at, &self.history[self.at]);
            match event {
                Event::Write {
                    file,
                    at: from,
                    bytes,
                } => self.file(*file).write(at, *from as usize, bytes),
                Event::Resize { file, size } => self.file(*file).resize(at, *size),
                Event::Synced { file, begun } => self.file(*file).sync(*begun),
                Event::SyncFailed { file } => self.file(*file).forget(),
                Event::Created {
                    dir,
                    name,
                    node,
                    is_dir,
                } => {
                    assert_eq!(*node, self.images.len());
                    self.images.push(if *is_dir {
                        Image::Dir(DirImage {
                            durable: BTreeMap::new(),
                            names: BTreeMap::new(),
                            changes: Vec::new(),
                        })
                    } else {
                        Image::File(FileImage::default())
                    });
                    self.dir(*dir).change(at, NameChange::Created(name, *node));
                }
                Event::Removed { dir, name } => {
                    let dir = self.dir(*dir);
                    let node = dir.names[name.as_str()];
                    dir.change(at, NameChange::Removed(name, node));
                }
                Event::Renamed { dir, from, to } => {
                    let dir = self.dir(*dir);
                    let node = dir.names[from.as_str()];
                    dir.change(at, NameChange::Renamed(from, to, node));
                }
                Event::DirSynced { dir, begun } => self.dir(*dir).sync(*begun),
            }
            self.at += 1;
        }
    }

    fn file(&mut self, id: NodeId) -> &mut FileImage<'h> {
        match &mut self.images[id] {
            Image::File(file) => file,
            Image::Dir(_) => panic!("{id} is a directory"),
        }
    }

    fn dir(&mut self, id: NodeId) -> &mut DirImage<'h> {
        match &mut self.images[id] {
            Image::Dir(dir) => dir,
            Image::File(_) => panic!("{id} is a file"),
        }
    }

    /// The disk after the power failed here.
    pub(super) fn power_failure(&self, kept: Kept, random: &mut Rng) -> MemoryDisk {
        let mut nodes = Vec::new();
        self.rescue(ROOT, kept, random, &mut nodes, &mut HashMap::new());
        MemoryDisk::with(nodes)
    }

    fn rescue(
        &self,
        id: NodeId,
        kept: Kept,
        random: &mut Rng,
        nodes: &mut Vec<Node>,
        known: &mut HashMap<NodeId, NodeId>,
    ) -> NodeId {
        if let Some(known) = known.get(&id) {
            return *known;
        }
        let new = nodes.len();
        known.insert(id, new);
        match &self.images[id] {
            Image::File(file) => nodes.push(Node::File(file.rescue(kept, random))),
            Image::Dir(dir) => {
                nodes.push(Node::Dir(BTreeMap::new()));
                let names = dir.rescue(kept, random);
                let names = names
                    .into_iter()
                    .map(|(name, id)| (name.to_owned(), self.rescue(id, kept, random, nodes, known)))
                    .collect();
                nodes[new] = Node::Dir(names);
            }
        }
        new
    }
}

impl<'h> FileImage<'h> {
    fn write(&mut self, at: Moment, from: usize, mut bytes: &'h [u8]) {
        let mut from = from;
        let end = (from + bytes.len()) as u64;
        if end > self.size {
            self.size = end;
            self.changes.push((at, Change::Size(end)));
        }
        while !bytes.is_empty() {
            let (part, rest) = bytes.split_at(bytes.len().min(PAGE - from % PAGE));
            self.changes.push((
                at,
                Change::Bytes {
                    at: from,
                    bytes: part,
                    forgotten: false,
                },
            ));
            from += part.len();
            bytes = rest;
        }
    }

    fn resize(&mut self, at: Moment, size: u64) {
        self.size = size;
        self.changes.push((at, Change::Size(size)));
    }

    fn sync(&mut self, begun: Moment) {
        let covered = self.changes.partition_point(|(at, _)| *at < begun);
        let (covered, rest) = self.changes.split_at(covered);
        // What a failed sync forgot is in its page still: it is written when that page is changed again.
        let written: HashSet<usize> = covered
            .iter()
            .filter_map(|(_, change)| match change {
                Change::Bytes {
                    at, forgotten: false, ..
                } => Some(at / PAGE),
                _ => None,
            })
            .collect();
        let mut left = Vec::new();
        for (at, change) in covered {
            match change {
                Change::Bytes {
                    at: from,
                    forgotten: true,
                    ..
                } if !written.contains(&(from / PAGE)) => left.push((*at, *change)),
                change => change.apply(&mut self.durable),
            }
        }
        left.extend_from_slice(rest);
        self.changes = left;
    }

    fn forget(&mut self) {
        for (_, change) in &mut self.changes {
            if let Change::Bytes { forgotten, .. } = change {
                *forgotten = true;
            }
        }
    }

    fn rescue(&self, kept: Kept, random: &mut Rng) -> Vec<u8> {
        let kept = match kept {
            Kept::Names => Kept::Nothing,
            // Most files are as one would expect, so that the others show what they do.
            Kept::Some => *random
                .choice([&Kept::All, &Kept::Nothing, &Kept::Some, &Kept::Some])
                .unwrap(),
            kept => kept,
        };
        let mut bytes = self.durable.clone();
        match kept {
            _ if self.changes.is_empty() => {}
            Kept::All => {
                for (_, change) in &self.changes {
                    change.apply(&mut bytes);
                }
                bytes.resize(self.size as usize, 0);
            }
            Kept::Nothing | Kept::Names => {}
            Kept::Some => return self.some(random),
        }
        bytes
    }

    fn some(&self, random: &mut Rng) -> Vec<u8> {
        let sizes = self.changes.iter().filter_map(|(_, change)| match change {
            Change::Size(size) => Some(*size as usize),
            Change::Bytes { .. } => None,
        });
        let sizes: Vec<usize> = std::iter::once(self.durable.len()).chain(sizes).collect();
        let chosen = random.usize(..sizes.len());
        let mut size = sizes[chosen];
        if let Some(next) = sizes.get(chosen + 1).filter(|next| **next > size)
            && random.bool()
        {
            size = random.usize(size..*next);
        }
        let largest = sizes.iter().max().copied().unwrap_or(0);
        let mut bytes = self.durable.clone();
        bytes.resize(largest, 0);
        for page in 0..largest.div_ceil(PAGE) {
            let touching: Vec<_> = self
                .changes
                .iter()
                .filter(|(_, change)| change.touches(page))
                .map(|(_, change)| *change)
                .collect();
            if touching.is_empty() {
                continue;
            }
            let done = random.usize(..=touching.len());
            for change in &touching[..done] {
                change.apply_to_page(&mut bytes, page, |_| true);
            }
            if let Some(torn) = touching.get(done)
                && random.bool()
            {
                torn.apply_to_page(&mut bytes, page, |_| random.bool());
            }
        }
        bytes.truncate(size);
        bytes
    }
}

impl Change<'_> {
    fn touches(&self, page: usize) -> bool {
        match self {
            Self::Bytes { at, .. } => at / PAGE == page,
            Self::Size(size) => (*size as usize) < (page + 1) * PAGE,
        }
    }

    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Bytes { at, bytes, .. } => {
                let end = at + bytes.len();
                if content.len() < end {
                    content.resize(end, 0);
                }
                content[*at..end].copy_from_slice(bytes);
            }
            Self::Size(size) => content.resize(*size as usize, 0),
        }
    }

    /// Applies what the change does in a page, in those sectors of it that `sectors` chooses.
    fn apply_to_page(&self, content: &mut [u8], page: usize, mut sectors: impl FnMut(usize) -> bool) {
        let end = ((page + 1) * PAGE).min(content.len());
        for start in (page * PAGE..end).step_by(SECTOR) {
            let sector = start..(start + SECTOR).min(end);
            if !sectors(start) {
                continue;
            }
            match self {
                Self::Bytes { at, bytes, .. } => {
                    let (from, to) = (sector.start.max(*at), sector.end.min(at + bytes.len()));
                    if from < to {
                        content[from..to].copy_from_slice(&bytes[from - at..to - at]);
                    }
                }
                // What a shorter file loses is zeros if it grows again.
                Self::Size(size) => {
                    let from = sector.start.max(*size as usize);
                    if from < sector.end {
                        content[from..sector.end].fill(0);
                    }
                }
            }
        }
    }
}

impl<'h> DirImage<'h> {
    fn change(&mut self, at: Moment, change: NameChange<'h>) {
        change.apply(&mut self.names);
        self.changes.push((at, change));
    }

    fn sync(&mut self, begun: Moment) {
        let covered = self.changes.partition_point(|(at, _)| *at < begun);
        for (_, change) in self.changes.drain(..covered) {
            change.apply(&mut self.durable);
        }
    }

    fn rescue(&self, kept: Kept, random: &mut Rng) -> BTreeMap<&'h str, NodeId> {
        let count = self.changes.len();
        let prefix = random.usize(..=count);
        // Most file systems keep the order of names; not all do.
        let ordered = random.bool();
        let mut names = self.durable.clone();
        for (i, (_, change)) in self.changes.iter().enumerate() {
            let done = match kept {
                Kept::All | Kept::Names => true,
                Kept::Nothing => false,
                Kept::Some if ordered => i < prefix,
                Kept::Some => random.bool(),
            };
            if done {
                change.apply(&mut names);
            }
        }
        names
    }
}

impl<'h> NameChange<'h> {
    fn apply(&self, names: &mut BTreeMap<&'h str, NodeId>) {
        match self {
            Self::Created(name, node) => {
                names.insert(name, *node);
            }
            Self::Removed(name, node) => {
                if names.get(name) == Some(node) {
                    names.remove(name);
                }
            }
            Self::Renamed(from, to, node) => {
                if names.get(from) == Some(node) {
                    names.remove(from);
                }
                names.insert(to, *node);
            }
        }
    }
}
