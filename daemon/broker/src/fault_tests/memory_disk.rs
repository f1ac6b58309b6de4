//! A disk in memory that remembers everything done to it, in order, so that [`power_failure`](super::power_failure)
//! can tell what would be left of it had the power gone at any moment; and that fails on demand.
//!
//! Two moments count for a sync: it covers what was written before it *began*, and gives its promise when it *ends*.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::disk::{Disk, DiskFile, Lock, OpenMode};

/// A moment: how many events came before.
pub(super) type Moment = usize;

/// A file or a directory, for life.
pub(super) type NodeId = usize;

/// What happened to the disk.
#[derive(Debug, Clone)]
pub(super) enum Event {
    Write {
        file: NodeId,
        at: u64,
        bytes: Vec<u8>,
    },
    Resize {
        file: NodeId,
        size: u64,
    },
    Synced {
        file: NodeId,
        begun: Moment,
    },
    /// What was not synced yet never will be by a later sync: the kernel forgets what it could not write.
    SyncFailed {
        file: NodeId,
    },
    Created {
        dir: NodeId,
        name: String,
        node: NodeId,
        is_dir: bool,
    },
    Removed {
        dir: NodeId,
        name: String,
    },
    Renamed {
        dir: NodeId,
        from: String,
        to: String,
    },
    DirSynced {
        dir: NodeId,
        begun: Moment,
    },
}

/// What is there now, for those who ask the file system.
#[derive(Debug, Clone)]
pub(super) enum Node {
    File(Vec<u8>),
    Dir(BTreeMap<String, NodeId>),
}

/// What is about to be done, for [`MemoryDisk::fail`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    Create,
    Write,
    Resize,
    Read,
    Sync,
    SyncDir,
    Rename,
    Remove,
}

type Fault = Box<dyn FnMut(Operation, &Path) -> Option<io::Error> + Send>;

type Meanwhile = Arc<dyn Fn() + Send + Sync>;

#[derive(Clone)]
pub(super) struct MemoryDisk(Arc<Mutex<Inner>>);

struct Inner {
    /// What is on disk when the history begins.
    base: Vec<Node>,
    nodes: Vec<Node>,
    history: Vec<Event>,
    fault: Option<Fault>,
    during_syncs: Option<Meanwhile>,
}

struct MemoryFile {
    disk: MemoryDisk,
    id: NodeId,
    path: PathBuf,
}

pub(super) const ROOT: NodeId = 0;

impl MemoryDisk {
    /// An empty disk.
    pub(super) fn new() -> Self {
        Self::with(vec![Node::Dir(BTreeMap::new())])
    }

    /// A disk on which `nodes` are durable.
    pub(super) fn with(nodes: Vec<Node>) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            base: nodes.clone(),
            nodes,
            history: Vec::new(),
            fault: None,
            during_syncs: None,
        })))
    }

    /// The disk after `history`, with the power on: what a process finds that follows one that was killed.
    #[cfg(test)]
    pub(super) fn after(base: &[Node], history: &[Event]) -> Self {
        let mut inner = Inner {
            base: base.to_vec(),
            nodes: base.to_vec(),
            history: Vec::new(),
            fault: None,
            during_syncs: None,
        };
        for event in history {
            inner.repeat(event).unwrap();
        }
        inner.history = history.to_vec();
        Self(Arc::new(Mutex::new(inner)))
    }

    pub(super) fn now(&self) -> Moment {
        self.0.lock().history.len()
    }

    /// What was there when the history began, and the history.
    pub(super) fn history(&self) -> (Vec<Node>, Vec<Event>) {
        let inner = self.0.lock();
        (inner.base.clone(), inner.history.clone())
    }

    /// What is there now, on a disk of its own.
    #[cfg(test)]
    pub(super) fn copy(&self) -> Self {
        let nodes = self.0.lock().nodes.clone();
        Self::with(nodes)
    }

    /// Changes a file behind the back of whoever uses it.
    #[cfg(test)]
    pub(super) fn change(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut inner = self.0.lock();
        let id = inner.find(path).unwrap();
        change(inner.bytes_mut(id).unwrap());
    }

    /// Has operations fail for which `fault` answers an error.
    pub(super) fn fail(&self, fault: impl FnMut(Operation, &Path) -> Option<io::Error> + Send + 'static) {
        self.0.lock().fault = Some(Box::new(fault));
    }

    pub(super) fn heal(&self) {
        self.0.lock().fault = None;
    }

    /// How many handles there are: of the disk, and of open files.
    pub(super) fn handles(&self) -> usize {
        Arc::strong_count(&self.0)
    }

    /// Has each sync of a file, once begun, wait for `meanwhile`; others read and write until it is done.
    pub(super) fn during_syncs(&self, meanwhile: impl Fn() + Send + Sync + 'static) {
        self.0.lock().during_syncs = Some(Arc::new(meanwhile));
    }

    /// The paths and contents of all files.
    pub(super) fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let inner = self.0.lock();
        let mut found = BTreeMap::new();
        let mut todo = vec![(PathBuf::from("/"), ROOT)];
        while let Some((path, id)) = todo.pop() {
            match &inner.nodes[id] {
                Node::File(bytes) => {
                    found.insert(path, bytes.clone());
                }
                Node::Dir(names) => todo.extend(names.iter().map(|(name, id)| (path.join(name), *id))),
            }
        }
        found
    }
}

impl Inner {
    fn check(&mut self, operation: Operation, path: &Path) -> io::Result<()> {
        match self.fault.as_mut().and_then(|fault| fault(operation, path)) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    #[cfg(test)]
    fn repeat(&mut self, event: &Event) -> io::Result<()> {
        match event {
            Event::Write { file, at, bytes } => self.write(*file, *at, bytes),
            Event::Resize { file, size } => self.resize(*file, *size),
            Event::Created {
                dir, name, is_dir, ..
            } => {
                let node = if *is_dir {
                    Node::Dir(BTreeMap::new())
                } else {
                    Node::File(Vec::new())
                };
                self.create(*dir, name.clone(), node).map(drop)
            }
            Event::Removed { dir, name } => self.remove(*dir, name.clone()),
            Event::Renamed { dir, from, to } => self.rename(*dir, from.clone(), to.clone()),
            Event::Synced { .. } | Event::SyncFailed { .. } | Event::DirSynced { .. } => Ok(()),
        }
    }

    fn find(&self, path: &Path) -> io::Result<NodeId> {
        let mut id = ROOT;
        for part in path.components() {
            if let Component::Normal(name) = part {
                let name = name.to_str().ok_or(io::ErrorKind::InvalidInput)?;
                id = *self.names(id)?.get(name).ok_or(io::ErrorKind::NotFound)?;
            }
        }
        Ok(id)
    }

    /// The directory a path is in, and its name there.
    fn place(&self, path: &Path) -> io::Result<(NodeId, String)> {
        let (Some(dir), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        Ok((self.find(dir)?, name.to_owned()))
    }

    fn names(&self, id: NodeId) -> io::Result<&BTreeMap<String, NodeId>> {
        match &self.nodes[id] {
            Node::Dir(names) => Ok(names),
            Node::File(_) => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    fn names_mut(&mut self, id: NodeId) -> io::Result<&mut BTreeMap<String, NodeId>> {
        match &mut self.nodes[id] {
            Node::Dir(names) => Ok(names),
            Node::File(_) => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    fn bytes(&self, id: NodeId) -> io::Result<&Vec<u8>> {
        match &self.nodes[id] {
            Node::File(bytes) => Ok(bytes),
            Node::Dir(_) => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    fn bytes_mut(&mut self, id: NodeId) -> io::Result<&mut Vec<u8>> {
        match &mut self.nodes[id] {
            Node::File(bytes) => Ok(bytes),
            Node::Dir(_) => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    fn create(&mut self, dir: NodeId, name: String, node: Node) -> io::Result<NodeId> {
        let id = self.nodes.len();
        let is_dir = matches!(node, Node::Dir(_));
        self.nodes.push(node);
        self.names_mut(dir)?.insert(name.clone(), id);
        self.history.push(Event::Created {
            dir,
            name,
            node: id,
            is_dir,
        });
        Ok(id)
    }

    fn remove(&mut self, dir: NodeId, name: String) -> io::Result<()> {
        let removed = self.names_mut(dir)?.remove(&name);
        removed.ok_or(io::ErrorKind::NotFound)?;
        self.history.push(Event::Removed { dir, name });
        Ok(())
    }

    /// The content first, one by one.
    fn remove_all(&mut self, dir: NodeId, name: String) -> io::Result<()> {
        let id = *self.names(dir)?.get(&name).ok_or(io::ErrorKind::NotFound)?;
        if let Node::Dir(names) = &self.nodes[id] {
            for child in names.keys().cloned().collect::<Vec<_>>() {
                self.remove_all(id, child)?;
            }
        }
        self.remove(dir, name)
    }

    fn rename(&mut self, dir: NodeId, from: String, to: String) -> io::Result<()> {
        let names = self.names_mut(dir)?;
        let id = names.remove(&from).ok_or(io::ErrorKind::NotFound)?;
        names.insert(to.clone(), id);
        self.history.push(Event::Renamed { dir, from, to });
        Ok(())
    }

    fn write(&mut self, file: NodeId, at: u64, bytes: &[u8]) -> io::Result<()> {
        let content = self.bytes_mut(file)?;
        let (from, end) = (at as usize, at as usize + bytes.len());
        if content.len() < end {
            content.resize(end, 0);
        }
        content[from..end].copy_from_slice(bytes);
        let bytes = bytes.to_vec();
        self.history.push(Event::Write { file, at, bytes });
        Ok(())
    }

    fn resize(&mut self, file: NodeId, size: u64) -> io::Result<()> {
        let bytes = self.bytes_mut(file)?;
        if bytes.len() as u64 != size {
            bytes.resize(size as usize, 0);
            self.history.push(Event::Resize { file, size });
        }
        Ok(())
    }
}

impl fmt::Debug for MemoryDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MemoryDisk")
    }
}

impl fmt::Debug for MemoryFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.fmt(f)
    }
}

impl Disk for MemoryDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut inner = self.0.lock();
        let id = match inner.find(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound && mode != OpenMode::Existing => {
                inner.check(Operation::Create, path)?;
                let (dir, name) = inner.place(path)?;
                inner.create(dir, name, Node::File(Vec::new()))?
            }
            found => found?,
        };
        inner.bytes(id)?;
        if mode == OpenMode::Empty {
            inner.resize(id, 0)?;
        }
        Ok(Arc::new(MemoryFile {
            disk: self.clone(),
            id,
            path: path.to_owned(),
        }))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let mut inner = self.0.lock();
        inner.check(Operation::Read, path)?;
        let id = inner.find(path)?;
        inner.bytes(id).cloned()
    }

    fn size(&self, path: &Path) -> io::Result<u64> {
        let inner = self.0.lock();
        Ok(inner.bytes(inner.find(path)?)?.len() as u64)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let inner = self.0.lock();
        Ok(inner.names(inner.find(dir)?)?.keys().cloned().collect())
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let mut inner = self.0.lock();
        let mut at = ROOT;
        for part in dir.components() {
            let Component::Normal(name) = part else { continue };
            let name = name.to_str().ok_or(io::ErrorKind::InvalidInput)?;
            let known = inner.names(at)?.get(name).copied();
            at = if let Some(id) = known {
                id
            } else {
                inner.check(Operation::Create, dir)?;
                inner.create(at, name.to_owned(), Node::Dir(BTreeMap::new()))?
            };
        }
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut inner = self.0.lock();
        inner.check(Operation::Rename, from)?;
        let ((dir, from), (to_dir, to)) = (inner.place(from)?, inner.place(to)?);
        assert_eq!(dir, to_dir, "the broker renames within a directory");
        inner.rename(dir, from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.0.lock();
        inner.check(Operation::Remove, path)?;
        let (dir, name) = inner.place(path)?;
        inner.remove(dir, name)
    }

    fn remove_dir_all(&self, dir: &Path) -> io::Result<()> {
        let mut inner = self.0.lock();
        inner.check(Operation::Remove, dir)?;
        let (dir, name) = inner.place(dir)?;
        inner.remove_all(dir, name)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let (dir, begun) = {
            let mut inner = self.0.lock();
            inner.check(Operation::SyncDir, path)?;
            let dir = inner.find(path)?;
            inner.names(dir)?;
            (dir, inner.history.len())
        };
        std::thread::yield_now();
        self.0.lock().history.push(Event::DirSynced { dir, begun });
        Ok(())
    }

    fn free_bytes(&self, _: &Path) -> u64 {
        1 << 30
    }

    fn lock(&self, path: &Path) -> io::Result<Result<Lock, String>> {
        // One broker at a time is what these tests see to themselves.
        self.open(path, OpenMode::OrCreate)?;
        Ok(Ok(Box::new(())))
    }
}

impl DiskFile for MemoryFile {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let mut inner = self.disk.0.lock();
        inner.check(Operation::Read, &self.path)?;
        let bytes = inner.bytes(self.id)?;
        let from = (position as usize).min(bytes.len());
        let len = buffer.len().min(bytes.len() - from);
        buffer[..len].copy_from_slice(&bytes[from..from + len]);
        Ok(len)
    }

    fn read_cached_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.read_at(buffer, position)
    }

    /// A write that fails may have written a part.
    fn write_all_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        let mut inner = self.disk.0.lock();
        let refused = inner.check(Operation::Write, &self.path);
        let bytes = if refused.is_ok() {
            bytes
        } else {
            &bytes[..bytes.len() / 2]
        };
        inner.write(self.id, position, bytes)?;
        refused
    }

    fn set_len(&self, size: u64) -> io::Result<()> {
        let mut inner = self.disk.0.lock();
        inner.check(Operation::Resize, &self.path)?;
        inner.resize(self.id, size)
    }

    fn sync_data(&self) -> io::Result<()> {
        let (begun, meanwhile) = {
            let mut inner = self.disk.0.lock();
            if let Err(e) = inner.check(Operation::Sync, &self.path) {
                inner.history.push(Event::SyncFailed { file: self.id });
                return Err(e);
            }
            (inner.history.len(), inner.during_syncs.clone())
        };
        // Others write meanwhile.
        match meanwhile {
            Some(meanwhile) => meanwhile(),
            None => std::thread::yield_now(),
        }
        self.disk
            .0
            .lock()
            .history
            .push(Event::Synced { file: self.id, begun });
        Ok(())
    }
}
