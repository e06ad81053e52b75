//! The subjects of `program` and `patterns`: malloc libraries that the dynamic linker puts in front of the C library's, and the proof that it
//! did.
//!
//! `ld.so` meets a library that it cannot preload with a warning and goes on without. Here that is an error. Three things are looked at, each
//! of which catches what the others miss: the file begins like a library of this machine; in this very program under the library, `malloc` and
//! its siblings come from that file; and `ld.so`, asked what it maps for the command itself, names it. A command that is linked statically
//! fails the last.

use std::env;
use std::ffi::{CStr, OsStr, OsString, c_char};
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use freestone_bench::subject::c_library;

use crate::Misuse;
use crate::arguments::Preloads;
use crate::cargo::Cargo;
use crate::child::{Launcher, output};
use crate::machine::said;
use crate::record::Version;
use crate::subjects::{FREESTONE, again};

/// The subject without a library: what the C library brings.
const SYSTEM: &str = "system";

/// Where a library comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Source {
    /// Nowhere: nothing is preloaded.
    CLibrary,
    /// It is built from this workspace.
    Workspace,
    /// Somebody else built it.
    File(PathBuf),
}

/// A subject that was asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Wanted {
    name: String,
    source: Source,
}

/// A subject that was seen to serve memory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Preload {
    /// In tables.
    pub(crate) name: String,
    /// What to preload; `None` is the C library's own.
    pub(crate) library: Option<PathBuf>,
    version: String,
}

impl Preload {
    /// For the record.
    pub(crate) fn version(&self) -> Version {
        Version { subject: self.name.clone(), version: self.version.clone(), option: None }
    }

    /// The same under another name, for comparing it with itself.
    pub(crate) fn again(&self) -> Self {
        Self { name: again(&self.name), ..self.clone() }
    }
}

/// Who takes part: system, freestone and those that were given, in this order, or those of them that `--only` names, in its order. Looks at
/// what was typed, and builds nothing yet.
pub(crate) fn wanted(asked: &Preloads) -> Result<Vec<Wanted>> {
    if let Some(already) = env::var_os("LD_PRELOAD").filter(|already| !already.is_empty()) {
        let already = already.display();
        bail!(Misuse(format!(
            "LD_PRELOAD is set already, to '{already}', and would mix with the subjects; unset it or make it a subject"
        )));
    }
    let mut all = vec![
        Wanted { name: SYSTEM.to_owned(), source: Source::CLibrary },
        Wanted { name: FREESTONE.to_owned(), source: Source::Workspace },
    ];
    for (name, library) in &asked.subject {
        let source = Source::File(located(name, library)?);
        match all.iter_mut().find(|its| its.name == *name) {
            // A build of another day stands in for the one of today.
            Some(its) if its.source == Source::Workspace => its.source = source,
            Some(_) => bail!(Misuse(format!("there are two subjects named '{name}'"))),
            None => all.push(Wanted { name: name.clone(), source }),
        }
    }
    if asked.only.is_empty() {
        return Ok(all);
    }
    let mut chosen: Vec<Wanted> = Vec::new();
    for name in &asked.only {
        let Some(its) = all.iter().find(|its| its.name == *name) else {
            let names: Vec<&str> = all.iter().map(|its| &*its.name).collect();
            bail!(Misuse(format!("there is no subject '{name}'; they are {}", names.join(", "))));
        };
        ensure!(!chosen.contains(its), Misuse(format!("there are two subjects named '{name}'")));
        chosen.push(its.clone());
    }
    Ok(chosen)
}

/// Builds what has to be built, and lets every subject prove itself: in this program, and in `command` if there is one.
pub(crate) fn proved(wanted: &[Wanted], cargo: &Cargo, command: Option<&[OsString]>) -> Result<Vec<Preload>> {
    let mut proved = Vec::new();
    for Wanted { name, source } in wanted {
        let library = match source {
            Source::CLibrary => None,
            Source::Workspace => Some(cargo.build_library("freestone-preload")?),
            Source::File(path) => Some(path.clone()),
        };
        let version = serves_memory(name, library.as_deref())?;
        if let (Some(library), Some(command)) = (&library, command) {
            is_mapped(name, library, command)?;
        }
        proved.push(Preload { name: name.clone(), library, version });
    }
    Ok(proved)
}

/// The absolute path of a library that was named by its path, or by the name that the dynamic linker knows it by.
fn located(subject: &str, library: &str) -> Result<PathBuf> {
    let path = if library.contains('/') { Some(std::path::absolute(library)?) } else { known_to_the_linker(library) };
    let path = path.filter(|path| path.is_file());
    let path = path.with_context(|| Misuse(format!("there is no library {library} for the subject '{subject}'")))?;
    let shown = path.display();
    ensure!(
        !path.as_os_str().as_bytes().iter().any(|byte| matches!(byte, b' ' | b':')),
        Misuse(format!("{shown} cannot be preloaded: for ld.so a space or a colon ends a path"))
    );
    let ours = header(Path::new("/proc/self/exe")).context("cannot read /proc/self/exe")?;
    let its = header(&path);
    ensure!(
        its.is_some_and(|its| its.is_library_beside(&ours)),
        Misuse(format!("{shown} is not a shared library of this machine"))
    );
    Ok(path)
}

/// By the linker's index; or in the folders that it looks into anyway, where the index is out of date or there is none.
fn known_to_the_linker(name: &str) -> Option<PathBuf> {
    let index = ["ldconfig", "/sbin/ldconfig"].iter().find_map(|program| said(Command::new(program).arg("-p")));
    let indexed = index.iter().flat_map(|index| index.lines()).filter_map(|line| {
        let (description, path) = line.split_once(" => ")?;
        (description.split_whitespace().next()? == name).then(|| PathBuf::from(path))
    });
    let arch = env::consts::ARCH;
    let folders = [
        &*format!("/lib/{arch}-linux-gnu"),
        &*format!("/usr/lib/{arch}-linux-gnu"),
        "/usr/local/lib",
        "/lib64",
        "/usr/lib64",
        "/lib",
        "/usr/lib",
    ]
    .map(|folder| Path::new(folder).join(name));
    indexed.chain(folders).find(|path| path.is_file())
}

/// The first bytes of an ELF file, as far as they say for whom it is.
struct Header([u8; 20]);

fn header(path: &Path) -> Option<Header> {
    let mut bytes = [0; 20];
    File::open(path).ok()?.read_exact(&mut bytes).ok()?;
    bytes.starts_with(b"\x7fELF").then_some(Header(bytes))
}

impl Header {
    /// Class, byte order and machine are the same, and the type is that of libraries (`ET_DYN`).
    fn is_library_beside(&self, other: &Self) -> bool {
        const DYNAMIC: u16 = 3;
        let kind = u16::from_ne_bytes([self.0[16], self.0[17]]);
        self.0[4..6] == other.0[4..6] && self.0[18..] == other.0[18..] && kind == DYNAMIC
    }
}

/// How long a subject may take to show itself.
const PATIENCE: Duration = Duration::from_mins(1);

/// Lets this program say under the library who serves its memory, and returns the version: the file's real name, which often says one.
fn serves_memory(name: &str, library: Option<&Path>) -> Result<String> {
    let launcher = Launcher::new(PATIENCE);
    let said = launcher.listen(library, &[launcher.program.as_os_str(), OsStr::new("proof")]);
    let (_, text) = said.map_err(|failure| anyhow::anyhow!("no program runs on {name}: {}", failure.reason))?;
    let real = |path: &Path| fs::canonicalize(path).ok();
    let mut files: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix(FROM)).collect();
    files.dedup();
    let Some(library) = library else {
        ensure!(files.len() == 1, "malloc and its siblings come from several files: {}", files.join(", "));
        return Ok(c_library());
    };
    let strangers: Vec<&str> = files.iter().copied().filter(|file| real(Path::new(file)) != real(library)).collect();
    ensure!(!files.is_empty(), "{name} does not say where malloc comes from");
    ensure!(
        strangers.is_empty(),
        "{name} does not serve memory: with {} preloaded, malloc or a sibling of it comes from {}",
        library.display(),
        strangers.join(", ")
    );
    let file = real(library).and_then(|path| path.file_name().map(|name| name.display().to_string()));
    Ok(file.unwrap_or_else(|| library.display().to_string()))
}

/// Asks `ld.so` what it maps for a command, which it answers instead of running it.
fn is_mapped(name: &str, library: &Path, command: &[OsString]) -> Result<()> {
    let (program, arguments) = command.split_first().context("there is no command")?;
    let mut asked = Command::new(program);
    asked.args(arguments).env("LD_PRELOAD", library).env("LD_TRACE_LOADED_OBJECTS", "1");
    let said = output(&mut asked, PATIENCE).map(|said| said.stdout).unwrap_or_default();
    let is_it = |line: &str| line.split_whitespace().any(|word| Path::new(word) == library);
    ensure!(
        said.lines().any(is_it),
        "{name} cannot be put into {}: the dynamic linker does not load {} there, perhaps because the command is linked statically",
        program.display(),
        library.display()
    );
    Ok(())
}

/// The command's first word has to name something that can be executed.
pub(crate) fn can_be_executed(command: &[OsString]) -> Result<()> {
    let program = command.first().context("there is no command")?;
    let is_program = |path: &Path| fs::metadata(path).is_ok_and(|its| its.is_file() && its.permissions().mode() & 0o111 != 0);
    let is_there = if program.as_bytes().contains(&b'/') {
        is_program(Path::new(program))
    } else {
        env::split_paths(&env::var_os("PATH").unwrap_or_default()).any(|folder| is_program(&folder.join(program)))
    };
    ensure!(is_there, Misuse(format!("there is no command '{}'", program.display())));
    Ok(())
}

/// What a line of the proof begins with.
const FROM: &str = "from ";

/// The hidden verb that says which file `malloc` and its siblings come from, a line each.
pub(crate) fn say_whose_malloc() {
    for name in [c"malloc", c"calloc", c"realloc", c"free", c"posix_memalign", c"aligned_alloc"] {
        println!("{FROM}{}", file_of(name));
    }
}

/// The file that the dynamic linker takes a function from.
fn file_of(function: &CStr) -> String {
    // SAFETY: the name ends with a zero byte.
    let address = unsafe { libc::dlsym(libc::RTLD_DEFAULT, function.as_ptr()) };
    // SAFETY: all zeros is a valid `Dl_info`.
    let mut info: libc::Dl_info = unsafe { std::mem::zeroed() };
    // SAFETY: any address may be asked for, and `info` is a valid place to write to.
    let found = unsafe { libc::dladdr(address, &raw mut info) };
    let name: *const c_char = info.dli_fname;
    if found == 0 || name.is_null() {
        return "nowhere".to_owned();
    }
    // SAFETY: a text of the linker's that lives as long as the library.
    unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned()
}
