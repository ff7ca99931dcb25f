//! What the agent's modules see.
use std::{collections::BTreeMap, fmt::Write as _, fs, path::PathBuf};

use super::config::{AgentConfig, Failure, MODULES};

/// One look at the host: values by metric name, and which thresholds are exceeded.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Measures {
    values: BTreeMap<&'static str, f64>,
    /// Names of thresholds, and whether each is exceeded.
    pub alarms: BTreeMap<&'static str, bool>,
}

fn number_at(text: &str, index: usize) -> Option<f64> {
    text.split_whitespace().nth(index)?.parse().ok()
}

/// A line of `/proc/meminfo`, in bytes.
fn memory(text: &str, key: &str) -> Option<f64> {
    let line = text.lines().find(|line| line.starts_with(key))?;
    number_at(line, 1).map(|kibibytes| kibibytes * 1024.0)
}

fn under_root(path: &str) -> PathBuf {
    let root = std::env::var_os("BRANCHLINE_ROOT").unwrap_or_else(|| "/".into());
    PathBuf::from(root).join(path.trim_start_matches('/'))
}

/// Lines of a configuration file of the host without comments; none where the file is not there.
fn lines_of(path: &str) -> Vec<String> {
    let text = fs::read_to_string(under_root(path)).unwrap_or_default();
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned).collect()
}

fn used_percent_of_root() -> Option<f64> {
    let numbers = rustix::fs::statvfs(under_root("/")).ok()?;
    let used = numbers.f_blocks.saturating_sub(numbers.f_bfree) as f64;
    let usable = used + numbers.f_bavail as f64;
    (usable > 0.0).then(|| 100.0 * used / usable)
}

impl Measures {
    /// Looks at the host with the modules that are switched on.
    pub fn take(config: &AgentConfig) -> Self {
        let mut own = Self::default();
        if config.has("cpu") {
            let load = fs::read_to_string("/proc/loadavg").ok().and_then(|text| number_at(&text, 0));
            own.put("sample_agent_load_1m", load);
            own.put("sample_agent_cpu_count", std::thread::available_parallelism().ok().map(|n| n.get() as f64));
        }
        if config.has("memory") {
            let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
            own.put("sample_agent_memory_total_bytes", memory(&text, "MemTotal:"));
            own.put("sample_agent_memory_available_bytes", memory(&text, "MemAvailable:"));
        }
        if config.has("disk") {
            own.put("sample_agent_disk_used_percent", used_percent_of_root());
        }
        if config.has("nfs") {
            let is_nfs = |line: &&String| line.split_whitespace().nth(2).is_some_and(|kind| kind.starts_with("nfs"));
            let mounts = lines_of("/etc/fstab").iter().filter(is_nfs).count();
            own.put("sample_agent_nfs_mounts_configured", Some(mounts as f64));
        }
        if config.has("cluster") {
            let members =
                lines_of("/etc/corosync/corosync.conf").iter().filter(|l| l.starts_with("ring0_addr")).count();
            own.put("sample_agent_cluster_members_configured", Some(members as f64));
        }
        if config.has("high-availability") {
            let signs = ["/etc/pacemaker", "/var/lib/pacemaker", "/etc/keepalived", "/etc/corosync"];
            let found = signs.iter().filter(|path| under_root(path).exists()).count();
            own.put("sample_agent_high_availability_configurations", Some(found as f64));
        }
        own.judge(config);
        own
    }

    fn put(&mut self, name: &'static str, value: Option<f64>) {
        self.values.extend(value.map(|value| (name, value)));
    }

    fn judge(&mut self, config: &AgentConfig) {
        let numbers = config.numbers();
        let rules: [(&'static str, &str, fn(f64, f64) -> bool); 4] = [
            ("cpu_load_warning", "sample_agent_load_1m", |value, bound| value > bound),
            ("memory_available_minimum_bytes", "sample_agent_memory_available_bytes", |value, bound| value < bound),
            ("disk_used_warning_percent", "sample_agent_disk_used_percent", |value, bound| value > bound),
            ("cluster_members_minimum", "sample_agent_cluster_members_configured", |value, bound| value < bound),
        ];
        for (threshold, metric, exceeded) in rules {
            if let (Some(bound), Some(value)) = (numbers.get(threshold), self.values.get(metric)) {
                self.alarms.insert(threshold, exceeded(*value, *bound));
            }
        }
    }

    /// Prometheus' text format (version 0.0.4).
    pub fn text(&self, config: &AgentConfig) -> String {
        let up = u8::from(config.fail != Some(Failure::Health));
        let mut text = String::new();
        let mut family = |name: &str, help: &str, lines: Vec<(String, String)>| {
            if lines.is_empty() {
                return;
            }
            // Writing into a String cannot fail.
            let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} gauge\n");
            for (labels, value) in lines {
                let _ = writeln!(text, "{name}{labels} {value}");
            }
        };
        family("sample_agent_up", "Whether the agent is well.", vec![(String::new(), up.to_string())]);
        let version = format!("{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"));
        family("sample_agent_info", "The agent.", vec![(version, "1".to_owned())]);
        let modules =
            MODULES.map(|module| (format!("{{module=\"{module}\"}}"), u8::from(config.has(module)).to_string()));
        family("sample_agent_module", "Whether a module is switched on.", modules.into());
        let thresholds = config.numbers().into_iter().map(|(name, value)| (label("name", name), value.to_string()));
        family("sample_agent_threshold", "The thresholds.", thresholds.collect());
        for (name, value) in &self.values {
            family(name, "A value of a module.", vec![(String::new(), value.to_string())]);
        }
        let alarms = self.alarms.iter().map(|(name, on)| (label("threshold", name), u8::from(*on).to_string()));
        family("sample_agent_alarm", "Whether a threshold is exceeded.", alarms.collect());
        text
    }
}

/// One label; quotes, backslashes and line ends are escaped as the format asks.
fn label(name: &str, value: &str) -> String {
    let escaped = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    format!("{{{name}=\"{escaped}\"}}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(modules: &[&str], thresholds: &[(&str, f64)]) -> AgentConfig {
        AgentConfig {
            listen: "127.0.0.1:0".parse().unwrap(),
            modules: modules.iter().map(|name| (*name).to_owned()).collect(),
            thresholds: thresholds.iter().map(|(k, v)| ((*k).to_owned(), toml::Value::Float(*v))).collect(),
            fail: None,
            fail_after_seconds: 0,
        }
    }

    #[test]
    fn only_modules_that_are_on_are_measured() {
        let config = config(&["memory"], &[]);
        let text = Measures::take(&config).text(&config);
        assert!(text.contains("sample_agent_module{module=\"memory\"} 1\n"), "{text}");
        assert!(text.contains("sample_agent_module{module=\"cpu\"} 0\n"), "{text}");
        assert!(text.contains("sample_agent_memory_total_bytes ") && !text.contains("sample_agent_load_1m"), "{text}");
        assert!(text.contains("sample_agent_up 1\n"), "{text}");
    }

    #[test]
    fn an_exceeded_threshold_is_an_alarm() {
        let all = u64::MAX as f64;
        let config = config(
            &["memory", "disk"],
            &[("memory_available_minimum_bytes", all), ("disk_used_warning_percent", 101.0)],
        );
        let measures = Measures::take(&config);
        assert!(measures.alarms["memory_available_minimum_bytes"]);
        assert!(!measures.alarms["disk_used_warning_percent"]);
        let text = measures.text(&config);
        assert!(text.contains("sample_agent_alarm{threshold=\"memory_available_minimum_bytes\"} 1\n"), "{text}");
    }
}
