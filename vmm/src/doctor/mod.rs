//! `ringlet doctor`: whether `ringlet run` works on this machine, with what, and what to do if not.

mod limits;
mod probe;

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::fs::File;
use std::path::Path;

use clap::Args;
use ringlet_devices::block::has_io_uring;
use serde::Serialize;

use crate::accel::{self, QEMU_PACKAGE};
use crate::images;

/// Arguments of `ringlet doctor`.
#[derive(Args, Clone, Copy, Debug)]
#[command(after_help = "Exit status: 0 if 'ringlet run' will work, else 1")]
pub struct DoctorArgs {
    /// Print one object of JSON
    #[arg(long)]
    pub json: bool,
}

/// What is under KVM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum KvmKind {
    /// Intel's virtualization.
    Vmx,
    /// AMD's.
    Svm,
    /// The software KVM that runs in a VM without nested virtualization (`kvm_pvm`).
    Pvm,
    /// Another software KVM.
    Software,
    /// There is no KVM.
    None,
}

/// What is known of KVM.
#[derive(Clone, Debug, Serialize)]
pub struct KvmState {
    /// Whether this user can run a guest with it.
    pub usable: bool,
    /// What is under it.
    pub kind: KvmKind,
    /// Why it is usable, or why not.
    pub reason: String,
}

/// A part of the jail.
#[derive(Clone, Debug, Serialize)]
pub struct JailPart {
    /// Whether the host allows it.
    pub works: bool,
    /// Why not, or empty.
    pub reason: String,
}

/// Something that is not as it should be, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// What is wrong.
    pub what: String,
    /// What to do.
    #[serde(rename = "do")]
    pub remedy: String,
}

impl Problem {
    fn new(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            remedy: remedy.into(),
        }
    }
}

/// All that was found.
#[derive(Clone, Debug, Serialize)]
pub struct Diagnosis {
    /// Whether `ringlet run` will work.
    pub ok: bool,
    /// KVM.
    pub kvm: KvmState,
    /// `ring0` or `shared`, as `--mode auto` chooses; nothing where no guest can run.
    pub mode: Option<&'static str>,
    /// `kvm` or `tcg`, as `--accel auto` chooses; nothing where no guest can run.
    pub accel: Option<&'static str>,
    /// The parts of the jail by name.
    pub jail: BTreeMap<&'static str, JailPart>,
    /// Whether the host lets this process use io_uring.
    pub io_uring: bool,
    /// What is wrong; with some of it `ringlet run` works all the same.
    pub problems: Vec<Problem>,
    /// Ringlet's version.
    pub version: &'static str,
    /// Why that mode, for people.
    #[serde(skip)]
    mode_reason: String,
    /// Transparent huge pages, for people.
    #[serde(skip)]
    huge_pages: String,
}

impl Diagnosis {
    /// Examines this machine and process. `jail` is what is known of the parts of the jail.
    pub fn make(jail: BTreeMap<&'static str, JailPart>) -> Self {
        let mut problems = Vec::new();
        let mut ok = true;
        let path = std::env::var_os("PATH").unwrap_or_default();
        let qemu = accel::find_qemu(&path);
        let (kvm, cycles) = examine_kvm(&mut problems, qemu.is_some());
        let (accel, mode, mode_reason) = match cycles {
            Some(cycles) => choose_mode(cycles),
            None if qemu.is_some() => (
                Some("tcg"),
                Some("ring0"),
                "QEMU emulates the processor with its ring 0".to_owned(),
            ),
            None => (None, None, "no guest can run".to_owned()),
        };
        ok &= accel.is_some();
        ok &= examine_images(&mut problems);
        ok &= limits::examine(&mut problems);
        let io_uring = has_io_uring();
        if !io_uring {
            problems.push(Problem::new(
                "io_uring is not to be had here: disks are slower",
                "allow io_uring_setup in the container's seccomp profile, and see that \
                 /proc/sys/kernel/io_uring_disabled is 0",
            ));
        }
        let huge_pages = examine_huge_pages(&mut problems);
        for (name, part) in jail.iter().filter(|(_, part)| !part.works) {
            problems.push(Problem::new(
                format!("jail: {name}: {}", part.reason),
                "nothing, if what is said above is enough; 'ringlet run --jail=strict' refuses to \
                 run without",
            ));
        }
        Self {
            ok,
            kvm,
            mode,
            accel,
            jail,
            io_uring,
            problems,
            version: env!("CARGO_PKG_VERSION"),
            mode_reason,
            huge_pages,
        }
    }
}

/// Examines KVM; gives the cycles of the loop at CPL 0 too, if it runs a guest.
fn examine_kvm(problems: &mut Vec<Problem>, has_qemu: bool) -> (KvmState, Option<u32>) {
    let slower = match has_qemu {
        true => "; until then QEMU emulates the processor, which is slower".to_owned(),
        false => format!("; or install QEMU, which is slower: apt-get install {QEMU_PACKAGE}"),
    };
    let kvm = match accel::open_kvm() {
        Ok(kvm) => kvm,
        Err(cause) => {
            let remedy = match cause.hint() {
                "" => "look into the kernel's log (dmesg | grep -i kvm)",
                hint => hint,
            };
            problems.push(Problem::new(cause.to_string(), format!("{remedy}{slower}")));
            let state = KvmState {
                usable: false,
                kind: match cause.is_absent() {
                    true => KvmKind::None,
                    false => probe::kind(None),
                },
                reason: cause.to_string(),
            };
            return (state, None);
        }
    };
    match probe::loop_cycles(&kvm) {
        Ok(cycles) => {
            let state = KvmState {
                usable: true,
                kind: probe::kind(Some(cycles)),
                reason: "/dev/kvm can be opened, and runs a guest".to_owned(),
            };
            (state, Some(cycles))
        }
        Err(cause) => {
            let what = format!("/dev/kvm can be opened, but runs no guest: {cause}");
            problems.push(Problem::new(
                what.clone(),
                format!(
                    "use --accel tcg, and look into the kernel's log (dmesg | grep -i kvm){slower}"
                ),
            ));
            let state = KvmState {
                usable: false,
                kind: probe::kind(None),
                reason: what,
            };
            (state, None)
        }
    }
}

/// Accelerator, mode and its reason where KVM runs a guest.
fn choose_mode(cycles: u32) -> (Option<&'static str>, Option<&'static str>, String) {
    let measured = format!("16 instructions at CPL 0 took {cycles} cycles");
    match cycles < ringlet_abi::EMULATED_CYCLES {
        true => (
            Some("kvm"),
            Some("ring0"),
            format!("{measured}: it is native"),
        ),
        false => (
            Some("kvm"),
            Some("shared"),
            format!("{measured}: it is emulated"),
        ),
    }
}

/// Whether the images that `ringlet run` uses by itself are there.
fn examine_images(problems: &mut Vec<Problem>) -> bool {
    let mut ok = true;
    let exe = std::env::current_exe().unwrap_or_default();
    let variable = |name: &str| std::env::var_os(name);
    for image in [images::KERNEL, images::ROOTFS] {
        let found = image
            .find(None, variable, &exe)
            .map_err(|error| error.to_string())
            .and_then(|path| readable(&path));
        if let Err(error) = found {
            ok = false;
            let (what, remedy) = error.split_once("; ").unwrap_or((&error, "run 'make'"));
            problems.push(Problem::new(what, remedy));
        }
    }
    ok
}

fn readable(path: &Path) -> Result<(), String> {
    File::open(path)
        .map(drop)
        .map_err(|error| format!("{}: {error}; build it with 'make'", path.display()))
}

/// The setting of transparent huge pages.
fn examine_huge_pages(problems: &mut Vec<Problem>) -> String {
    const SETTING: &str = "/sys/kernel/mm/transparent_hugepage/enabled";
    let text = std::fs::read_to_string(SETTING).unwrap_or_default();
    let chosen = text
        .split_once('[')
        .and_then(|(_, rest)| rest.split_once(']'))
        .map_or("unknown", |(chosen, _)| chosen);
    if chosen == "never" {
        problems.push(Problem::new(
            "transparent huge pages are off: memory is slower when it is first used",
            format!("echo madvise > {SETTING}"),
        ));
    }
    chosen.to_owned()
}

impl fmt::Display for KvmKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Vmx => "VMX",
            Self::Svm => "SVM",
            Self::Pvm => "PVM, a software KVM",
            Self::Software => "a software KVM",
            Self::None => "none",
        })
    }
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "ringlet {}", self.version)?;
        let usable = if self.kvm.usable {
            "usable"
        } else {
            "not usable"
        };
        writeln!(f, "KVM: {usable} ({}): {}", self.kvm.kind, self.kvm.reason)?;
        writeln!(f, "accelerator: {}", self.accel.unwrap_or("none"))?;
        let mode = self.mode.unwrap_or("none");
        writeln!(f, "mode: {mode} ({})", self.mode_reason)?;
        let io_uring = if self.io_uring { "works" } else { "denied" };
        writeln!(f, "io_uring: {io_uring}")?;
        writeln!(f, "transparent huge pages: {}", self.huge_pages)?;
        for (name, part) in &self.jail {
            match part.works {
                true => writeln!(f, "jail: {name}: works")?,
                false => writeln!(f, "jail: {name}: does not work: {}", part.reason)?,
            }
        }
        for problem in &self.problems {
            writeln!(f, "problem: {}\n    {}", problem.what, problem.remedy)?;
        }
        f.write_str(match self.ok {
            true => "'ringlet run' will work",
            false => "'ringlet run' will not work",
        })?;
        f.write_char('\n')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mode_follows_from_the_loop() {
        assert_eq!(choose_mode(40).1, Some("ring0"));
        assert_eq!(choose_mode(30_000).1, Some("shared"));
    }

    #[test]
    fn the_diagnosis_has_the_fields_that_are_promised() {
        let part = JailPart {
            works: false,
            reason: "denied".to_owned(),
        };
        let diagnosis = Diagnosis::make(BTreeMap::from([("landlock", part)]));
        let value = serde_json::to_value(&diagnosis).unwrap();
        let keys: Vec<_> = value.as_object().unwrap().keys().collect();
        let mut wanted = [
            "ok", "kvm", "mode", "accel", "jail", "io_uring", "problems", "version",
        ];
        wanted.sort_unstable();
        assert_eq!(keys, wanted);
        assert_eq!(value["jail"]["landlock"]["works"], false);
        assert!(value["io_uring"].is_boolean());
        let problems = value["problems"].as_array().unwrap();
        assert!(problems.iter().all(|problem| problem["what"].is_string()
            && problem["do"].as_str().is_some_and(|text| !text.is_empty())));
        assert!(
            diagnosis
                .to_string()
                .contains("jail: landlock: does not work: denied")
        );
    }
}
