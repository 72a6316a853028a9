//! `trust.install`: the guest's system trusts further authorities.
//!
//! Most programs read the system's bundle; the rest is for those that must be pointed to a file. No link by subject hash
//! is made in `/etc/ssl/certs`: who looks only there finds the certificates after the guest's own `update-ca-certificates`,
//! which takes them from the anchors.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use skerry_protocol::methods::{TrustInstallParams, TrustInstalled};
use skerry_protocol::{EnvMap, Failure, Text};

use crate::system_files::{
    Stamp, append, has_part, open_unchanged, part_of, read, replace, rewrite, with_part, without_part,
};

const DIRECTORY: &str = "etc/skerry";
const CERTIFICATES: &str = "etc/skerry/ca.pem";
const COMBINED: &str = "etc/skerry/ca-bundle.pem";
/// Where images have their list of authorities: Debian and Alpine, Fedora, BSD's libraries, SUSE.
const SYSTEM: [&str; 4] = [
    "etc/ssl/certs/ca-certificates.crt",
    "etc/pki/tls/certs/ca-bundle.crt",
    "etc/ssl/cert.pem",
    "etc/ssl/ca-bundle.pem",
];
/// From these an image's own tools make that list: update-ca-certificates, update-ca-trust.
const ANCHORS: [(&str, &str); 2] =
    [("usr/local/share/ca-certificates", "skerry.crt"), ("etc/pki/ca-trust/source/anchors", "skerry.pem")];
const ENVIRONMENT: &str = "etc/environment";
const PROFILE: &str = "etc/profile.d/skerry.sh";
const SUDOERS: &str = "etc/sudoers.d/skerry";

/// The trust of one system, which is below `root`.
pub struct Trust {
    root: PathBuf,
    /// Held while files are changed: two at once would take each other's half-written ones.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    installed: bool,
    prepared: Option<Prepared>,
}

/// The system's list and a copy of it, as `prepare` saw them; neither has a part of ours.
struct Prepared {
    list: (PathBuf, Stamp),
    copy: (PathBuf, Stamp),
}

impl Trust {
    pub fn new(root: &Path) -> Trust {
        Trust { root: root.to_owned(), state: Mutex::default() }
    }

    /// Copies the system's list, so that the first install only appends.
    pub fn prepare(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.installed {
            state.prepared = self.copy_list().ok().flatten();
        }
    }

    fn copy_list(&self) -> io::Result<Option<Prepared>> {
        std::fs::create_dir_all(self.root.join(DIRECTORY))?;
        let Some((path, list)) = self.system_list() else { return Ok(None) };
        if has_part(&list) || !list.ends_with(b"\n") {
            return Ok(None);
        }
        let (path, copy) = (self.root.join(path), self.root.join(COMBINED));
        replace(&copy, &list, 0o644)?;
        // Opened for writing, the list is copied to where the sandbox's changes are: that too is done now.
        let (list, copied) = (Stamp::of_writable(&path)?, Stamp::of_writable(&copy)?);
        Ok(Some(Prepared { list: (path, list), copy: (copy, copied) }))
    }

    /// Trusts the certificates instead of those of an earlier call.
    ///
    /// What cannot be written in an odd image is left out, unless no file at all can be pointed to.
    pub fn install(&self, params: &TrustInstallParams) -> Result<TrustInstalled, Failure> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.installed = true;
        let certificates = joined(&params.certificate_pem, &params.extra_roots_pem);
        let _ = std::fs::create_dir(self.root.join(DIRECTORY));
        let alone = replace(&self.root.join(CERTIFICATES), &certificates, 0o644);
        let appended = state.prepared.take().is_some_and(|prepared| prepared.append(&certificates));
        let system = match if appended { Ok(true) } else { self.add_to_lists(&certificates) } {
            Ok(system) => system,
            Err((_, system)) if alone.is_ok() => system,
            Err((error, _)) => {
                let errno = error.raw_os_error().unwrap_or(libc::EIO);
                return Err(Failure::errno(errno, "write", &Text::from("/etc/skerry/ca-bundle.pem")));
            }
        };
        let _ = self.add_anchor(&certificates);
        self.set_variables(&params.env);
        Ok(TrustInstalled { system })
    }

    /// Says whether the image has a list, with an error if the combined one cannot be written.
    fn add_to_lists(&self, certificates: &[u8]) -> Result<bool, (io::Error, bool)> {
        let list = self.system_list();
        if let Some((path, list)) = &list {
            let _ = put_part(&self.root.join(path), list, certificates);
        }
        let combined = with_part(list.as_ref().map_or(&[], |(_, list)| list), certificates);
        match replace(&self.root.join(COMBINED), &combined, 0o644) {
            Ok(()) => Ok(list.is_some()),
            Err(error) => Err((error, list.is_some())),
        }
    }

    /// The image's list of authorities and where it is; one without any is none.
    fn system_list(&self) -> Option<(&'static str, Vec<u8>)> {
        let (path, list) = SYSTEM.iter().find_map(|path| Some((*path, read(&self.root.join(path)).ok()?)))?;
        let theirs = if has_part(&list) { &without_part(&list) } else { &list };
        (!theirs.trim_ascii().is_empty()).then_some((path, list))
    }

    /// For the image's tools, or those that are installed later.
    fn add_anchor(&self, certificates: &[u8]) -> io::Result<()> {
        let places = ANCHORS.map(|(directory, name)| (self.root.join(directory), name));
        let (directory, name) = match places.iter().find(|(directory, _)| directory.is_dir()) {
            Some(found) => found,
            None => {
                std::fs::create_dir_all(&places[0].0)?;
                &places[0]
            }
        };
        replace(&directory.join(name), certificates, 0o644)
    }

    /// Names variables to those who start without the agent's environment: logins, and what sudo starts. Their names and
    /// values were checked: no sign means anything to a shell.
    fn set_variables(&self, variables: &EnvMap) {
        let text = |text| std::str::from_utf8(text).ok();
        let variables: Vec<(&str, &str)> = variables
            .0
            .iter()
            .filter_map(|(name, value)| Some((text(name.as_bytes())?, text(value.as_bytes())?)))
            .collect();
        let _ = set_for_logins(&self.root.join(ENVIRONMENT), &variables);
        let profile: String = variables
            .iter()
            .map(|(name, value)| format!("export {name}=\"${{{name}-{value}}}\"\n"))
            .collect();
        let _ = replace(&self.root.join(PROFILE), profile.as_bytes(), 0o644);
        let names: Vec<&str> = variables.iter().map(|(name, _)| *name).collect();
        // sudo takes an empty list for an error.
        let kept = match names.is_empty() {
            true => String::new(),
            false => format!("Defaults env_keep += \"{}\"\n", names.join(" ")),
        };
        let _ = replace(&self.root.join(SUDOERS), kept.as_bytes(), 0o440);
    }
}

impl Prepared {
    /// False if somebody has changed a file meanwhile; nothing was written then.
    fn append(&self, certificates: &[u8]) -> bool {
        let part = part_of(b"", certificates);
        let open = |(path, stamp): &(PathBuf, Stamp)| open_unchanged(path, stamp);
        let Ok((mut list, mut copy)) = open(&self.list).and_then(|list| Ok((list, open(&self.copy)?))) else {
            return false;
        };
        list.write_all(&part).and_then(|()| copy.write_all(&part)).is_ok()
    }
}

fn joined(certificate: &str, extra_roots: &str) -> Vec<u8> {
    let newline = if certificate.is_empty() || certificate.ends_with('\n') { "" } else { "\n" };
    [certificate, newline, extra_roots].concat().into_bytes()
}

/// Puts our part into a file that holds `text`.
fn put_part(path: &Path, text: &[u8], part: &[u8]) -> io::Result<()> {
    if !has_part(text) {
        return append(path, &part_of(text, part));
    }
    let changed = with_part(text, part);
    if changed == text { Ok(()) } else { rewrite(path, &changed) }
}

/// pam_env(8): lines of the form NAME=value. Those that the image sets win.
fn set_for_logins(path: &Path, variables: &[(&str, &str)]) -> io::Result<()> {
    let (text, is_there) = match read(path) {
        Ok(text) => (text, true),
        Err(error) if error.kind() == ErrorKind::NotFound => (Vec::new(), false),
        Err(error) => return Err(error),
    };
    let theirs = without_part(&text);
    let set: BTreeSet<&[u8]> = theirs.split(|byte| *byte == b'\n').filter_map(name_of).collect();
    let ours: String = variables
        .iter()
        .filter(|(name, _)| !set.contains(name.as_bytes()))
        .map(|(name, value)| format!("{name}={value}\n"))
        .collect();
    match is_there {
        true => put_part(path, &text, ours.as_bytes()),
        false => replace(path, &with_part(&text, ours.as_bytes()), 0o644),
    }
}

fn name_of(line: &[u8]) -> Option<&[u8]> {
    let line = line.trim_ascii_start();
    let line = line.strip_prefix(b"export ").unwrap_or(line).trim_ascii_start();
    let end = line.iter().position(|byte| *byte == b'=')?;
    Some(line[..end].trim_ascii_end())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;
    use crate::test_directory::TestDirectory;

    const THEIRS: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    const OURS: &str = "-----BEGIN CERTIFICATE-----\nBBBB\n-----END CERTIFICATE-----\n";
    const OTHER: &str = "-----BEGIN CERTIFICATE-----\nCCCC\n-----END CERTIFICATE-----\n";

    fn image(files: &[(&str, &str)]) -> TestDirectory {
        let image = TestDirectory::new();
        for directory in ["etc/ssl/certs", "etc/profile.d", "etc/sudoers.d"] {
            std::fs::create_dir_all(image.path.join(directory)).unwrap();
        }
        for (path, text) in files {
            let path = image.path.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        image
    }

    fn params(certificate: &str, extra: &str, variables: &[(&str, &str)]) -> TrustInstallParams {
        let env = variables.iter().map(|(name, value)| (Text::from(*name), Text::from(*value))).collect();
        TrustInstallParams {
            certificate_pem: certificate.to_owned(),
            extra_roots_pem: extra.to_owned(),
            env: EnvMap(env),
        }
    }

    fn text(image: &TestDirectory, path: &str) -> String {
        std::fs::read_to_string(image.path.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    fn count(text: &str, part: &str) -> usize {
        text.matches(part).count()
    }

    #[test]
    fn the_systems_list_and_the_combined_one_get_the_certificates() {
        for prepared in [false, true] {
            for path in SYSTEM {
                let image = image(&[(path, THEIRS)]);
                if prepared {
                    Trust::new(&image.path).prepare();
                    assert_eq!(text(&image, COMBINED), THEIRS);
                }
                let installed = Trust::new(&image.path).install(&params(OURS, OTHER, &[])).unwrap();
                assert!(installed.system);
                assert_eq!(text(&image, CERTIFICATES), [OURS, OTHER].concat());
                assert_eq!(text(&image, COMBINED), text(&image, path));
                assert_eq!(
                    text(&image, path),
                    [THEIRS, "# Skerry: begin\n", OURS, OTHER, "# Skerry: end\n"].concat()
                );
            }
        }
    }

    #[test]
    fn again_changes_nothing_and_another_certificate_takes_the_place() {
        let image = image(&[(SYSTEM[0], THEIRS), (ENVIRONMENT, "A=1\n")]);
        let first = params(OURS, "", &[("B", "x")]);
        Trust::new(&image.path).install(&first).unwrap();
        let files = [CERTIFICATES, COMBINED, SYSTEM[0], ENVIRONMENT, SUDOERS];
        let once = files.map(|path| text(&image, path));
        Trust::new(&image.path).install(&first).unwrap();
        assert_eq!(files.map(|path| text(&image, path)), once);
        Trust::new(&image.path).install(&params(OTHER, "", &[("B", "x")])).unwrap();
        for path in [COMBINED, SYSTEM[0]] {
            assert_eq!([THEIRS, OURS, OTHER].map(|part| count(&text(&image, path), part)), [1, 0, 1]);
        }
        assert_eq!(text(&image, "usr/local/share/ca-certificates/skerry.crt"), OTHER);
    }

    #[test]
    fn a_list_that_the_guests_tools_made_anew_is_added_to_again() {
        let image = image(&[(SYSTEM[0], THEIRS)]);
        Trust::new(&image.path).install(&params(OURS, "", &[])).unwrap();
        std::fs::write(image.path.join(SYSTEM[0]), [THEIRS, OURS].concat()).unwrap();
        Trust::new(&image.path).install(&params(OTHER, "", &[])).unwrap();
        assert_eq!(count(&text(&image, SYSTEM[0]), OTHER), 1);
        assert_eq!(text(&image, COMBINED), text(&image, SYSTEM[0]));
    }

    #[test]
    fn an_image_without_authorities_gets_a_list_of_ours_only() {
        for files in [&[][..], &[(SYSTEM[0], "")]] {
            let image = image(files);
            Trust::new(&image.path).prepare();
            let wanted = params(OURS, "", &[("A", "1"), ("B", "2")]);
            assert!(!Trust::new(&image.path).install(&wanted).unwrap().system);
            assert_eq!(count(&text(&image, COMBINED), OURS), 1);
            assert!(!Trust::new(&image.path).install(&params(OURS, "", &[("A", "1")])).unwrap().system);
            assert_eq!(text(&image, ENVIRONMENT), "# Skerry: begin\nA=1\n# Skerry: end\n");
            assert_eq!(text(&image, SUDOERS), "Defaults env_keep += \"A\"\n");
        }
    }

    #[test]
    fn a_list_behind_a_link_stays_behind_it() {
        let image = image(&[("etc/pki/extracted.pem", THEIRS)]);
        symlink("../pki/extracted.pem", image.path.join("etc/ssl/cert.pem")).unwrap();
        for certificate in [OURS, OTHER] {
            Trust::new(&image.path).install(&params(certificate, "", &[])).unwrap();
            assert!(image.path.join("etc/ssl/cert.pem").symlink_metadata().unwrap().is_symlink());
            assert_eq!(count(&text(&image, "etc/pki/extracted.pem"), certificate), 1);
        }
    }

    #[test]
    fn anchors_go_where_the_images_tools_look() {
        let fedora = image(&[("etc/pki/ca-trust/source/anchors/README", "")]);
        Trust::new(&fedora.path).install(&params(OURS, OTHER, &[])).unwrap();
        assert_eq!(text(&fedora, "etc/pki/ca-trust/source/anchors/skerry.pem"), [OURS, OTHER].concat());
        assert!(!fedora.path.join("usr").exists());
        let bare = image(&[]);
        Trust::new(&bare.path).install(&params(OURS, "", &[])).unwrap();
        assert_eq!(text(&bare, "usr/local/share/ca-certificates/skerry.crt"), OURS);
    }

    #[test]
    fn variables_are_set_unless_the_image_sets_them() {
        let image = image(&[(ENVIRONMENT, "A=theirs\n  export B = x\n#C=no\nPATH=\"/bin\"")]);
        Trust::new(&image.path)
            .install(&params(OURS, "", &[("A", "1"), ("B", "2"), ("C", "/c"), ("D", "4")]))
            .unwrap();
        assert_eq!(
            text(&image, ENVIRONMENT),
            "A=theirs\n  export B = x\n#C=no\nPATH=\"/bin\"\n# Skerry: begin\nC=/c\nD=4\n# Skerry: end\n"
        );
        assert!(text(&image, PROFILE).contains("export C=\"${C-/c}\"\n"));
        let kept = image.path.join(SUDOERS);
        assert_eq!(std::fs::read_to_string(&kept).unwrap(), "Defaults env_keep += \"A B C D\"\n");
        assert_eq!(kept.metadata().unwrap().mode() & 0o7777, 0o440);
    }

    #[test]
    fn without_variables_nothing_is_said_about_any() {
        let image = image(&[(ENVIRONMENT, "A=1\n")]);
        for variables in [&[("B", "2")][..], &[]] {
            Trust::new(&image.path).install(&params(OURS, "", variables)).unwrap();
        }
        assert_eq!([ENVIRONMENT, PROFILE, SUDOERS].map(|path| text(&image, path)), ["A=1\n", "", ""]);
    }

    #[test]
    fn odd_files_in_an_image_cost_only_themselves() {
        let image = image(&[(SYSTEM[0], THEIRS)]);
        for directory in [ENVIRONMENT, SUDOERS, PROFILE, COMBINED] {
            std::fs::create_dir_all(image.path.join(directory).join("inside")).unwrap();
        }
        std::fs::create_dir_all(image.path.join("usr/local")).unwrap();
        std::fs::write(image.path.join("usr/local/share"), "a file").unwrap();
        let installed = Trust::new(&image.path).install(&params(OURS, "", &[("A", "1")])).unwrap();
        assert!(installed.system);
        assert_eq!(text(&image, CERTIFICATES), OURS);
        assert_eq!(count(&text(&image, SYSTEM[0]), OURS), 1);
    }

    #[test]
    fn a_guest_where_nothing_can_be_written_is_an_error() {
        let image = image(&[(DIRECTORY, "a file")]);
        let failure = Trust::new(&image.path).install(&params(OURS, "", &[])).unwrap_err();
        assert_eq!(failure.code, "ENOTDIR");
    }

    #[test]
    fn modes_do_not_depend_on_what_was_there() {
        let image = image(&[(SYSTEM[0], THEIRS), (CERTIFICATES, "old")]);
        let path = image.path.join(CERTIFICATES);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        Trust::new(&image.path).install(&params(OURS, "", &[])).unwrap();
        for path in [CERTIFICATES, COMBINED] {
            assert_eq!(image.path.join(path).metadata().unwrap().mode() & 0o7777, 0o644, "{path}");
        }
    }
}
