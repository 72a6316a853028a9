//! The accounts that act in the guest, from its own `/etc/passwd` and `/etc/group`.

use rustix::process::{Gid, Uid};

use crate::sys::Identity;

const FALLBACK_ID: u32 = 1000;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    pub name: Vec<u8>,
    pub uid: Uid,
    pub gid: Gid,
    pub groups: Vec<Gid>,
    pub home: Vec<u8>,
    pub shell: Vec<u8>,
}

impl Account {
    /// The account `name`; if the guest has none, uid and gid 1000 with `/home/NAME`.
    pub fn by_name(name: &str, passwd: &[u8], group: &[u8]) -> Account {
        let name = name.as_bytes();
        Self::find(passwd, group, |fields| fields[0] == name).unwrap_or_else(|| {
            let id = if name == b"root" { 0 } else { FALLBACK_ID };
            let home = if id == 0 { b"/root".to_vec() } else { [b"/home/", name].concat() };
            Account {
                name: name.to_vec(),
                uid: Uid::from_raw(id),
                gid: Gid::from_raw(id),
                groups: groups_of(group, name, id),
                home,
                shell: b"/bin/sh".to_vec(),
            }
        })
    }

    /// The account of a user ID, which need not be listed.
    pub fn by_uid(uid: Uid, gid: Gid, passwd: &[u8], group: &[u8]) -> Account {
        let wanted = uid.as_raw();
        Self::find(passwd, group, |fields| number(fields[2]) == Some(wanted)).unwrap_or_else(|| Account {
            name: wanted.to_string().into_bytes(),
            uid,
            gid,
            groups: Vec::new(),
            home: b"/".to_vec(),
            shell: b"/bin/sh".to_vec(),
        })
    }

    fn find(passwd: &[u8], group: &[u8], matches: impl Fn(&[&[u8]]) -> bool) -> Option<Account> {
        passwd.split(|byte| *byte == b'\n').find_map(|line| {
            let fields: Vec<&[u8]> = line.split(|byte| *byte == b':').collect();
            if fields.len() < 7 || !matches(&fields) {
                return None;
            }
            let (uid, gid) = (number(fields[2])?, number(fields[3])?);
            let or =
                |field: &[u8], other: &[u8]| if field.is_empty() { other.to_vec() } else { field.to_vec() };
            Some(Account {
                name: fields[0].to_vec(),
                uid: Uid::from_raw(uid),
                gid: Gid::from_raw(gid),
                groups: groups_of(group, fields[0], gid),
                home: or(fields[5], b"/"),
                shell: or(fields[6], b"/bin/sh"),
            })
        })
    }

    pub fn identity(&self) -> Identity<'_> {
        Identity { uid: self.uid, gid: self.gid, groups: &self.groups }
    }
}

fn number(field: &[u8]) -> Option<u32> {
    // -1 means "leave as it is" to the system calls that set IDs.
    std::str::from_utf8(field).ok()?.parse().ok().filter(|id| *id != u32::MAX)
}

/// The primary group, and those that list the user as a member.
fn groups_of(group: &[u8], user: &[u8], primary: u32) -> Vec<Gid> {
    /// `NGROUPS_MAX` of Linux.
    const MOST: usize = 65_536;
    let mut ids = vec![primary];
    for line in group.split(|byte| *byte == b'\n') {
        let fields: Vec<&[u8]> = line.split(|byte| *byte == b':').collect();
        let [_, _, id, members] = fields[..] else { continue };
        let is_member = members.split(|byte| *byte == b',').any(|member| member == user);
        if let Some(id) = number(id).filter(|id| is_member && !ids.contains(id) && ids.len() < MOST) {
            ids.push(id);
        }
    }
    ids.into_iter().map(Gid::from_raw).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/bash\n# a comment\napp:x:1001:1002:,,,:/home/app:/bin/zsh\nbad:x:y:1::\n";
    const GROUP: &[u8] = b"root:x:0:\nsudo:x:27:other,app\ndocker:x:99:apple\napp:x:1002:app\n";

    fn raw(groups: &[Gid]) -> Vec<u32> {
        groups.iter().map(|gid| gid.as_raw()).collect()
    }

    #[test]
    fn an_account_comes_from_the_guest() {
        let app = Account::by_name("app", PASSWD, GROUP);
        assert_eq!((app.uid.as_raw(), app.gid.as_raw()), (1001, 1002));
        assert_eq!((app.home.as_slice(), app.shell.as_slice()), (&b"/home/app"[..], &b"/bin/zsh"[..]));
        assert_eq!(raw(&app.groups), [1002, 27]);
    }

    #[test]
    fn a_missing_or_broken_account_has_a_fallback() {
        for name in ["nobody-here", "bad"] {
            let account = Account::by_name(name, PASSWD, GROUP);
            assert_eq!((account.uid.as_raw(), account.gid.as_raw()), (1000, 1000));
            assert_eq!(account.home, format!("/home/{name}").into_bytes());
        }
        assert_eq!(Account::by_name("root", b"", b"").home, b"/root");
    }

    #[test]
    fn an_account_is_found_by_number() {
        let (uid, gid) = (Uid::from_raw(1001), Gid::from_raw(5));
        assert_eq!(Account::by_uid(uid, gid, PASSWD, GROUP).name, b"app");
        assert_eq!(Account::by_uid(uid, gid, b"", b"").home, b"/");
    }
}
