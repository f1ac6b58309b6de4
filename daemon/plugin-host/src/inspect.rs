//! Reads what a file says about itself, before any of its code runs: is it a shared library for this machine, and does
//! it carry the header of a plugin that this daemon can work with?

use std::mem::offset_of;

use object::elf::{self, FileHeader64};
use object::read::elf::{Dyn as _, FileHeader as _, ProgramHeader as _, SectionHeader as _};
use object::{Endianness, ReadRef as _};
use tidewater_plugin_api::abi::{
    ABI_MAJOR, HEADER_SECTION, KNOWN_FEATURES, MAGIC, PluginHeader, SDK_VERSION, TARGET,
};

use crate::load_error::LoadError;

type Result<T> = std::result::Result<T, LoadError>;

/// What a plugin that fits says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspected {
    /// The plugin's name.
    pub name: String,
    /// The plugin's version.
    pub version: String,
    /// The version of the SDK it was built with.
    pub sdk_version: String,
    /// The minor version of the ABI it was built for.
    pub abi_minor: u16,
    /// The symbol to call.
    pub entry: String,
}

/// Reads the file's header.
pub fn inspect(file: &[u8]) -> Result<Inspected> {
    let section = header_section(file)?;
    read_header(section)
}

fn header_section(file: &[u8]) -> Result<&[u8]> {
    if file.is_empty() {
        return Err(LoadError::Empty);
    }
    if !file.starts_with(b"\x7fELF") {
        return Err(not_elf(file));
    }
    if file.len() < size_of::<FileHeader64<Endianness>>() {
        return Err(truncated("the ELF header"));
    }
    if file[4] != elf::ELFCLASS64.0 {
        return Err(LoadError::WrongMachine {
            found: "a 32-bit machine".into(),
            expected: std::env::consts::ARCH.into(),
        });
    }
    let header = FileHeader64::<Endianness>::parse(file).map_err(damaged)?;
    let endian = header.endian().map_err(damaged)?;

    match header.e_type(endian) {
        elf::ET_DYN => {}
        elf::ET_EXEC => return Err(LoadError::Executable),
        other => return Err(LoadError::NotShared { file_type: other.0 }),
    }
    let machine = header.e_machine(endian);
    if machine != this_machine() {
        return Err(LoadError::WrongMachine {
            found: format!("{machine:?}"),
            expected: std::env::consts::ARCH.into(),
        });
    }

    // The section table stands at the end: it is gone first when a copy is cut short.
    let table_end = u64::from(header.e_shentsize(endian))
        .checked_mul(header.e_shnum(endian).into())
        .and_then(|size| size.checked_add(header.e_shoff(endian)));
    if table_end.is_none_or(|end| end > file.len() as u64) {
        return Err(truncated("the section table"));
    }
    let segments = header.program_headers(endian, file).map_err(damaged)?;
    for segment in segments {
        let end = segment.p_offset(endian).checked_add(segment.p_filesz(endian));
        if end.is_none_or(|end| end > file.len() as u64) {
            return Err(truncated("a segment"));
        }
        if let Some(entries) = segment.dynamic(endian, file).map_err(damaged)? {
            let flags = entries.iter().find(|entry| entry.tag(endian) == elf::DT_FLAGS_1);
            if flags.is_some_and(|flags| flags.d_val(endian) & elf::DF_1_PIE.0 != 0) {
                return Err(LoadError::Executable);
            }
        }
    }
    let sections = header.sections(endian, file).map_err(damaged)?;
    let (_, section) = sections
        .section_by_name(endian, HEADER_SECTION.as_bytes())
        .ok_or(LoadError::NoPlugin)?;
    let (offset, size) = section.file_range(endian).ok_or(LoadError::NoPlugin)?;
    file.read_bytes_at(offset, size)
        .map_err(|()| truncated("the plugin header"))
}

fn not_elf(file: &[u8]) -> LoadError {
    let beginning = &file[..file.len().min(24)];
    match std::str::from_utf8(&file[..file.len().min(512)]) {
        Ok(text) if !text.contains('\0') => LoadError::Text {
            beginning: String::from_utf8_lossy(beginning)
                .lines()
                .next()
                .unwrap_or_default()
                .into(),
        },
        _ => LoadError::NotElf {
            beginning: format!("{:02x?}", &beginning[..beginning.len().min(8)]),
        },
    }
}

fn truncated(what: &str) -> LoadError {
    LoadError::Truncated {
        detail: format!("{what} reaches beyond the end of the file"),
    }
}

#[allow(clippy::needless_pass_by_value)] // for map_err
fn damaged(error: object::Error) -> LoadError {
    LoadError::Truncated {
        detail: format!("its ELF structure cannot be read ({error})"),
    }
}

fn this_machine() -> elf::Machine {
    if cfg!(target_arch = "aarch64") {
        elf::EM_AARCH64
    } else if cfg!(target_arch = "riscv64") {
        elf::EM_RISCV
    } else {
        elf::EM_X86_64
    }
}

/// Checks the plugin's header. Whatever differs between versions stands after what does not, so the major version can
/// be told from any header.
fn read_header(section: &[u8]) -> Result<Inspected> {
    let bad = |detail: String| LoadError::BadHeader { detail };
    if section.len() < offset_of!(PluginHeader, required_features) {
        return Err(bad(format!("it has {} bytes only", section.len())));
    }
    if section[..8] != MAGIC {
        return Err(bad("it does not begin as one".into()));
    }
    let u32_at =
        |at: usize| u32::from_ne_bytes([section[at], section[at + 1], section[at + 2], section[at + 3]]);
    let u16_at = |at: usize| u16::from_ne_bytes([section[at], section[at + 1]]);
    let stated = u32_at(offset_of!(PluginHeader, header_size)) as usize;
    let major = u16_at(offset_of!(PluginHeader, abi_major));
    let text =
        |at: usize, length: usize| PluginHeader::text(section.get(at..at + length).unwrap_or_default());
    let sdk_version = text(offset_of!(PluginHeader, sdk_version), 32);
    if major != ABI_MAJOR {
        return Err(LoadError::WrongMajor {
            found: major,
            expected: ABI_MAJOR,
            sdk_version,
            sdk_wanted: sdk_wanted(),
        });
    }
    if stated < size_of::<PluginHeader>() || stated > section.len() {
        return Err(bad(format!(
            "it states {stated} bytes, its section has {}, at least {} are needed",
            section.len(),
            size_of::<PluginHeader>()
        )));
    }
    let features = u32_at(offset_of!(PluginHeader, required_features));
    let high = u32_at(offset_of!(PluginHeader, required_features) + 4);
    // Two halves, since native order says which is which.
    let features = u64::from_ne_bytes(
        [features.to_ne_bytes(), high.to_ne_bytes()]
            .concat()
            .try_into()
            .unwrap_or_default(),
    );
    let unknown = features & !KNOWN_FEATURES;
    if unknown != 0 {
        return Err(LoadError::UnknownFeatures {
            bits: unknown,
            sdk_wanted: sdk_wanted(),
        });
    }
    let ptr_width = section[offset_of!(PluginHeader, ptr_width)];
    if u32::from(ptr_width) != usize::BITS {
        return Err(LoadError::PointerWidth {
            found: ptr_width,
            expected: usize::BITS as u8,
            target: TARGET.into(),
        });
    }
    let target = text(offset_of!(PluginHeader, target), 64);
    if target != TARGET {
        return Err(LoadError::WrongTarget {
            found: target,
            expected: TARGET.into(),
        });
    }
    match section[offset_of!(PluginHeader, panic_unwind)] {
        1 => {}
        0 => return Err(LoadError::PanicAbort),
        other => return Err(bad(format!("its panic strategy is {other}"))),
    }
    let inspected = Inspected {
        name: text(offset_of!(PluginHeader, name), 64),
        version: text(offset_of!(PluginHeader, version), 32),
        sdk_version,
        abi_minor: u16_at(offset_of!(PluginHeader, abi_minor)),
        entry: text(offset_of!(PluginHeader, entry), 96),
    };
    if inspected.name.is_empty() || inspected.entry.is_empty() {
        return Err(bad("it names no plugin or no entry".into()));
    }
    Ok(inspected)
}

/// The SDK's versions that fit, as Cargo.toml writes them: `0.1`.
fn sdk_wanted() -> String {
    SDK_VERSION
        .rsplit_once('.')
        .map_or(SDK_VERSION, |(wanted, _)| wanted)
        .to_owned()
}
