//! The closed vocabularies of a descriptor: every enumerated attribute value.

use serde::{Deserialize, Serialize};

/// Declares an enumeration whose variants each have one word in the XML.
macro_rules! vocabulary {
    ($(#[$documentation:meta])* $name:ident { $($(#[$variant_documentation:meta])* $variant:ident => $word:literal,)+ }) => {
        $(#[$documentation])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum $name {
            $($(#[$variant_documentation])* $variant,)+
        }

        impl Vocabulary for $name {
            const WORDS: &'static [(&'static str, Self)] = &[$(($word, Self::$variant),)+];

            fn word(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str(self.word())
            }
        }
    };
}

/// An enumeration with one word for each variant.
pub trait Vocabulary: Copy + Sized + 'static {
    /// Every word with its variant, in the order of the schema.
    const WORDS: &'static [(&'static str, Self)];

    /// The word of this variant.
    fn word(self) -> &'static str;

    /// The variant of a word, if it is one of the vocabulary.
    fn from_word(word: &str) -> Option<Self> {
        Self::WORDS.iter().find(|(candidate, _)| *candidate == word).map(|(_, variant)| *variant)
    }
}

vocabulary! {
    /// How thoroughly a signature looked (R44).
    Mode {
        /// Looked at what is there.
        Discovery => "discovery",
        /// Also measured for a while and derived thresholds from it.
        Baseline => "baseline",
    }
}

vocabulary! {
    /// What kind of machine the operating system runs on.
    SystemKind {
        /// Hardware of its own.
        Physical => "physical",
        /// A guest of a hypervisor.
        Virtual => "virtual",
        /// A container or another shared-kernel environment.
        Container => "container",
        /// The survey found no sign of either.
        Unknown => "unknown",
    }
}

vocabulary! {
    /// What starts services on the host.
    InitSystem {
        /// systemd is running as the first process.
        Systemd => "systemd",
        /// OpenRC.
        Openrc => "openrc",
        /// Another init.
        Other => "other",
        /// None was found: services are plain processes.
        None => "none",
    }
}

vocabulary! {
    /// The package manager that owns the host's files.
    PackageManager {
        /// Debian's dpkg.
        Dpkg => "dpkg",
        /// RPM.
        Rpm => "rpm",
        /// Alpine's apk.
        Apk => "apk",
        /// Arch's pacman.
        Pacman => "pacman",
        /// None was found.
        None => "none",
    }
}

vocabulary! {
    /// Family of an interface address.
    AddressFamily {
        /// IP version 4.
        Ipv4 => "ipv4",
        /// IP version 6.
        Ipv6 => "ipv6",
    }
}

vocabulary! {
    /// Who can reach a listening port.
    PortScope {
        /// It listens on every address.
        Any => "any",
        /// It listens on a loopback address only.
        Loopback => "loopback",
        /// It listens on one particular address.
        Address => "address",
    }
}

vocabulary! {
    /// How much a module is needed to monitor the detected hardware.
    Need {
        /// It adds insight.
        Useful => "useful",
        /// Without it an important fault goes unseen.
        Required => "required",
    }
}

vocabulary! {
    /// How much a potential conflict matters.
    Severity {
        /// Worth knowing.
        Note => "note",
        /// May need a decision.
        Warning => "warning",
        /// An installation will fail while it lasts.
        Blocking => "blocking",
    }
}
