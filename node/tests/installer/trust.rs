//! A captured station, with its keys in the tester's hands, and what the installer says to it (R87, R122).
use std::fs;

use branchline::install::{InstallOrder, InstallerOutcome, InstallerRequest};
use branchline_protocol::{
    catalogue::{Catalogue, SitePolicy},
    charter::{PublicKey, Signed},
    ids::{Hash, PlanHash},
};

use super::support::{
    ADMINISTRATOR, CATALOGUE, OWNER, STATION, Site, agent_definition, agent_tar, charter, failure, key, node, refusal,
    tar,
};

#[test]
fn what_is_not_signed_as_it_must_be_is_refused_with_its_reason() {
    let mut site = Site::new();
    let before = site.tree();
    site.start(&[]);
    let good = site.order(5, &agent_definition(site.port, "", ""), &agent_tar());

    let mut order = good.clone();
    order.charter = Signed::sign(&charter(1), &key(STATION));
    let owner = PublicKey::of(&key(OWNER)).to_string();
    assert!(refusal(&site.install(&order).1).contains(&format!("{owner} must sign it")));

    let mut order = good.clone();
    let unsigned: Catalogue = good.catalogue.verify(PublicKey::of(&key(CATALOGUE))).unwrap();
    order.catalogue = Signed::sign(&unsigned, &key(STATION));
    assert!(refusal(&site.install(&order).1).contains("the catalogue is signed by"));

    let mut order = good.clone();
    let policy: SitePolicy = good.policy.verify(PublicKey::of(&key(ADMINISTRATOR))).unwrap();
    order.policy = Signed::sign(&policy, &key(STATION));
    assert!(refusal(&site.install(&order).1).contains("the site policy is signed by"));

    let mut order = good.clone();
    order.plan = PlanHash(Hash([9; 32]));
    assert!(refusal(&site.install(&order).1).contains("nothing is done"));

    let mut order = good.clone();
    order.descriptor_xml = "<survey/>".into();
    assert!(refusal(&site.install(&order).1).contains("the descriptor of this host is not usable"));
    assert_eq!(site.tree(), before);

    // Catalogue 5 was seen with the orders above; an older one is refused from then on.
    let (_, outcome) = site.install(&site.order(4, &agent_definition(site.port, "", ""), &agent_tar()));
    assert!(refusal(&outcome).contains("is older than version 5"), "{outcome:?}");
    assert_eq!(site.tree(), before);
}

/// R63: each plan is one host's own, and names it.
#[test]
fn what_was_planned_for_another_host_is_refused() {
    let mut site = Site::new();
    site.start(&[]);
    let own = site.order(1, &agent_definition(site.port, "", ""), &agent_tar());
    let (events, outcome) = site.install(&own);
    assert!(matches!(outcome, InstallerOutcome::Installed(_)), "{events:#?}");
    let installed = site.tree();
    let of_another = site.order_for(node(8), 2, &agent_definition(site.port, "", ""), &agent_tar());
    assert!(refusal(&site.install(&of_another).1).contains("but this host is"));
    // The same under this host's name.
    let renamed = InstallOrder { node: own.node, ..of_another };
    assert!(refusal(&site.install(&renamed).1).contains("nothing is done"));
    assert_eq!(site.tree(), installed);
}

#[test]
fn an_older_charter_stays_refused_over_a_restart() {
    let mut site = Site::new();
    site.start(&[]);
    let take = |version| InstallerRequest::TakeCharter {
        charter: Box::new(Signed::sign(&charter(version), &key(OWNER))),
        revocations: None,
    };
    assert_eq!(site.ask(&take(3)).1, InstallerOutcome::CharterTaken { version: 3 });
    site.start(&[]);
    assert!(refusal(&site.ask(&take(2)).1).contains("is not newer than version 3"));
}

#[test]
fn a_damaged_or_wrong_pack_fails_before_anything_is_touched() {
    let mut site = Site::new();
    let before = site.tree();
    site.start(&[]);
    let order = site.order(1, &agent_definition(site.port, "", ""), &agent_tar());
    let frames = &order.packs[0].frames;
    let good = fs::read(frames).unwrap();
    let mut bad = good.clone();
    bad[10] ^= 1;
    fs::write(frames, &bad).unwrap();
    assert!(failure(&site.install(&order).1).contains("is refused"));
    fs::remove_file(frames).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", frames).unwrap();
    assert!(failure(&site.install(&order).1).contains("cannot be read"));
    assert_eq!(site.tree(), before);
}

/// An archive with one member that no honest builder would write.
fn hostile(path: &[u8], kind: tar::EntryType, link: &str) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.as_old_mut().name[..path.len()].copy_from_slice(path);
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_size(0);
    if !link.is_empty() {
        header.set_link_name(link).unwrap();
    }
    header.set_cksum();
    let mut builder = ::tar::Builder::new(tar(&[("a-file", 0o644, "harmless\n")])[..1024].to_vec());
    builder.append(&header, std::io::empty()).unwrap();
    builder.into_inner().unwrap()
}

#[test]
fn a_hostile_archive_touches_nothing() {
    use tar::EntryType;
    let mut site = Site::new();
    let before = site.tree();
    site.start(&[]);
    let cases: [(&[u8], EntryType, &str, &str); 7] = [
        (b"/etc/passwd", EntryType::Regular, "", "absolute or has .."),
        (b"../../etc/passwd", EntryType::Regular, "", "absolute or has .."),
        (b"link", EntryType::Symlink, "/etc", "leads out of the payload"),
        (b"link", EntryType::Symlink, "../../etc", "leads out of the payload"),
        (b"link", EntryType::Link, "../../etc/passwd", "leads out of the payload"),
        (b"null", EntryType::Char, "", "it is a device"),
        (b"pipe", EntryType::Fifo, "", "it is a pipe"),
    ];
    for (version, (path, kind, link, said)) in (1..).zip(cases) {
        let order = site.order(version, &agent_definition(site.port, "", ""), &hostile(path, kind, link));
        let (_, outcome) = site.install(&order);
        assert!(failure(&outcome).contains(said), "{outcome:?}");
        assert_eq!(site.tree(), before, "{said}");
    }
}
