//! Scenarios to start from. The planner's guide in the book names the sources of their figures.

/// A scenario that comes with the product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preset {
    /// What it is asked for by.
    pub name: &'static str,
    /// What it is, in one line.
    pub about: &'static str,
    /// The scenario, as TOML with comments.
    pub text: &'static str,
}

/// All presets, in the order of the guide.
pub const PRESETS: [Preset; 6] = [
    Preset {
        name: "large-retail",
        about: "5,000 stores of 80 machines, three kinds of lines, three waves",
        text: include_str!("../../presets/large-retail.toml"),
    },
    Preset {
        name: "restaurants",
        about: "2,000 restaurants of 3 small computers on business broadband",
        text: include_str!("../../presets/restaurants.toml"),
    },
    Preset {
        name: "mid-enterprise",
        about: "70 sites with 12,000 machines, installed in the evening",
        text: include_str!("../../presets/mid-enterprise.toml"),
    },
    Preset {
        name: "global-wan",
        about: "150 sites in three tiers, far lines with latency and loss",
        text: include_str!("../../presets/global-wan.toml"),
    },
    Preset {
        name: "branch-office",
        about: "one office of 50 machines behind a T1 line of 1.544 Mbit/s",
        text: include_str!("../../presets/branch-office.toml"),
    },
    Preset {
        name: "flash-crowd",
        about: "200,000 hosts in three days where 20,000 were foreseen",
        text: include_str!("../../presets/flash-crowd.toml"),
    },
];

impl Preset {
    /// The preset of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        PRESETS.iter().find(|preset| preset.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capacity::Scenario;

    #[test]
    fn every_preset_is_a_scenario_of_the_size_it_names() {
        let sizes = PRESETS.map(|preset| {
            let scenario = Scenario::from_toml(preset.text).unwrap_or_else(|error| panic!("{}: {error}", preset.name));
            (preset.name, scenario.sites_total(), scenario.hosts_about())
        });
        let expected = [
            ("large-retail", 5000, 400_000.0),
            ("restaurants", 2000, 6000.0),
            ("mid-enterprise", 70, 12_000.0),
            ("global-wan", 150, 14_000.0),
            ("branch-office", 1, 50.0),
            ("flash-crowd", 1000, 200_000.0),
        ];
        assert_eq!(sizes, expected);
    }

    #[test]
    fn a_preset_is_found_by_its_name_only() {
        assert_eq!(Preset::named("restaurants"), Some(&PRESETS[1]));
        assert_eq!(Preset::named("restaurant"), None);
    }
}
