//! `--set key=value` and `--sweep key=a,b,c`: changes to a scenario before it is read.
use std::{fmt, str::FromStr};

use thiserror::Error;
use toml::{Table, Value};

/// A change of one figure: `sites.0.hosts=200`. Lists are counted from 0; `*` is every entry of a list.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting {
    key: String,
    value: Value,
    written: String,
}

/// Several values of one figure: `sites.0.hosts=20,80,320`.
#[derive(Clone, Debug, PartialEq)]
pub struct Sweep {
    key: String,
    values: Vec<String>,
}

/// Why a change cannot be made.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum SettingError {
    /// There is no key or no value.
    #[error("`{0}` is no setting; write key=value, such as sites.0.hosts=200")]
    Form(String),
    /// The value is not TOML.
    #[error("{key}={value}: the value is neither a number, a word, a list nor a table of TOML ({fault})")]
    Value {
        /// The key.
        key: String,
        /// The text after it.
        value: String,
        /// What the reader of TOML says.
        fault: String,
    },
    /// A list has no such entry.
    #[error("{key}: `{list}` has {}, counted from 0; there is no entry `{entry}` (`*` means all of them)", entries(*.count))]
    Entry {
        /// The whole key.
        key: String,
        /// The part that names the list.
        list: String,
        /// How many entries it has.
        count: usize,
        /// The entry that was asked for.
        entry: String,
    },
    /// A part of the key is a plain value.
    #[error("{key}: `{part}` is {found}, which has no `{next}`; set `{part}` as a whole")]
    NoTable {
        /// The whole key.
        key: String,
        /// The part that has no parts.
        part: String,
        /// What it is.
        found: &'static str,
        /// What was looked for in it.
        next: String,
    },
}

fn entries(count: usize) -> String {
    if count == 1 { "one entry".to_owned() } else { format!("{count} entries") }
}

/// Key and text of `key=value`.
fn split(text: &str) -> Result<(&str, &str), SettingError> {
    let form = || SettingError::Form(text.to_owned());
    let (key, value) = text.split_once('=').ok_or_else(form)?;
    let (key, value) = (key.trim(), value.trim());
    let well_formed = key.split('.').all(|part| !part.is_empty() && !part.contains(char::is_whitespace));
    if well_formed && !value.is_empty() { Ok((key, value)) } else { Err(form()) }
}

/// A value of TOML; a word needs no quotes.
fn value_of(key: &str, text: &str) -> Result<Value, SettingError> {
    let is_word = |text: &str| text.chars().all(|letter| letter.is_ascii_alphanumeric() || "_-".contains(letter));
    match toml::from_str::<Table>(&format!("value = {text}")) {
        Ok(mut table) if table.len() == 1 => table.remove("value").ok_or_else(|| SettingError::Form(text.to_owned())),
        Ok(_) => Err(SettingError::Form(text.to_owned())),
        Err(_) if is_word(text) => Ok(Value::String(text.to_owned())),
        Err(error) => {
            let fault = error.message().to_owned();
            Err(SettingError::Value { key: key.to_owned(), value: text.to_owned(), fault })
        }
    }
}

impl FromStr for Setting {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, SettingError> {
        let (key, value) = split(text)?;
        Self::new(key, value)
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}={}", self.key, self.written)
    }
}

impl Setting {
    /// `key` shall be what `value` says in TOML.
    ///
    /// # Errors
    /// [`SettingError::Value`] where it says nothing.
    pub fn new(key: &str, value: &str) -> Result<Self, SettingError> {
        Ok(Self { key: key.to_owned(), value: value_of(key, value)?, written: value.to_owned() })
    }

    /// Makes the change; tables that are missing are made.
    ///
    /// # Errors
    /// The key leads through a plain value, or to an entry that a list does not have.
    pub fn apply(&self, scenario: &mut Table) -> Result<(), SettingError> {
        let parts: Vec<&str> = self.key.split('.').collect();
        self.apply_to_table(scenario, &parts, 0)
    }

    fn apply_to_table(&self, table: &mut Table, parts: &[&str], depth: usize) -> Result<(), SettingError> {
        let name = parts[depth];
        if depth + 1 == parts.len() {
            table.insert(name.to_owned(), self.value.clone());
            return Ok(());
        }
        let inner = table.entry(name).or_insert_with(|| Value::Table(Table::new()));
        self.apply_to_value(inner, parts, depth + 1)
    }

    fn apply_to_value(&self, value: &mut Value, parts: &[&str], depth: usize) -> Result<(), SettingError> {
        match value {
            Value::Table(table) => self.apply_to_table(table, parts, depth),
            Value::Array(list) => self.apply_to_list(list, parts, depth),
            plain => Err(SettingError::NoTable {
                key: self.key.clone(),
                part: parts[..depth].join("."),
                found: described(plain),
                next: parts[depth].to_owned(),
            }),
        }
    }

    fn apply_to_list(&self, list: &mut [Value], parts: &[&str], depth: usize) -> Result<(), SettingError> {
        let no_entry = || SettingError::Entry {
            key: self.key.clone(),
            list: parts[..depth].join("."),
            count: list.len(),
            entry: parts[depth].to_owned(),
        };
        let chosen = match parts[depth] {
            "*" => 0..list.len(),
            index => {
                let index = index.parse::<usize>().ok().filter(|index| *index < list.len()).ok_or_else(no_entry)?;
                index..index + 1
            }
        };
        for entry in &mut list[chosen] {
            if depth + 1 == parts.len() {
                *entry = self.value.clone();
            } else {
                self.apply_to_value(entry, parts, depth + 1)?;
            }
        }
        Ok(())
    }
}

fn described(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "a word",
        Value::Integer(_) | Value::Float(_) => "a number",
        Value::Boolean(_) => "true or false",
        Value::Datetime(_) => "a date",
        Value::Array(_) => "a list",
        Value::Table(_) => "a table",
    }
}

impl FromStr for Sweep {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, SettingError> {
        let (key, values) = split(text)?;
        let values = split_values(values);
        for value in &values {
            if value.is_empty() {
                return Err(SettingError::Form(text.to_owned()));
            }
            Setting::new(key, value)?;
        }
        Ok(Self { key: key.to_owned(), values })
    }
}

impl Sweep {
    /// The figure.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Its values, as written.
    pub fn values(&self) -> &[String] {
        &self.values
    }
}

/// Parts between commas that stand in no bracket and no quotes.
fn split_values(text: &str) -> Vec<String> {
    let (mut parts, mut depth, mut quoted) = (vec![String::new()], 0_u32, false);
    for letter in text.chars() {
        match letter {
            '"' => quoted = !quoted,
            '[' | '{' if !quoted => depth += 1,
            ']' | '}' if !quoted => depth = depth.saturating_sub(1),
            _ => {}
        }
        if letter == ',' && depth == 0 && !quoted {
            parts.push(String::new());
        } else if let Some(part) = parts.last_mut() {
            part.push(letter);
        }
    }
    parts.iter().map(|part| part.trim().to_owned()).collect()
}

/// Every combination of the sweeps' values, the last sweep's changing fastest; one empty combination without sweeps.
pub fn combinations(sweeps: &[Sweep]) -> Vec<Vec<String>> {
    sweeps.iter().fold(vec![Vec::new()], |points, sweep| {
        let with = |point: &Vec<String>, value: &String| point.iter().chain([value]).cloned().collect();
        points.iter().flat_map(|point| sweep.values.iter().map(move |value| with(point, value))).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        toml::from_str("a = 1\n[[sites]]\nhosts = 3\n[[sites]]\nhosts = 4\nlist = [1, 2]").unwrap()
    }

    fn changed(setting: &str) -> Result<String, String> {
        let mut table = table();
        let setting: Setting = setting.parse().map_err(|error: SettingError| error.to_string())?;
        setting.apply(&mut table).map_err(|error| error.to_string())?;
        Ok(toml::to_string(&table).unwrap().replace('\n', ";"))
    }

    #[test]
    fn values_are_put_where_the_key_leads() {
        let cases = [
            ("a=word", "a = \"word\";;[[sites]];hosts = 3;;[[sites]];hosts = 4;list = [1, 2];"),
            ("sites.1.hosts=200", "a = 1;;[[sites]];hosts = 3;;[[sites]];hosts = 200;list = [1, 2];"),
            ("sites.*.hosts=1e3", "a = 1;;[[sites]];hosts = 1000.0;;[[sites]];hosts = 1000.0;list = [1, 2];"),
            ("sites.1.list.0=9", "a = 1;;[[sites]];hosts = 3;;[[sites]];hosts = 4;list = [9, 2];"),
            ("b.c=true", "a = 1;;[b];c = true;;[[sites]];hosts = 3;;[[sites]];hosts = 4;list = [1, 2];"),
        ];
        for (setting, expected) in cases {
            assert_eq!(changed(setting).unwrap(), expected, "{setting}");
        }
    }

    #[test]
    fn what_leads_nowhere_is_refused() {
        let settings =
            ["hosts", "=3", "a=", "a..b=1", "sites.2.hosts=1", "sites.x.hosts=1", "a.b=1", "a=[1", "a=1\nb=2"];
        let refusals = settings.map(|setting| format!("{setting:?}: {}", changed(setting).unwrap_err()));
        insta::assert_snapshot!(refusals.join("\n"));
    }

    #[test]
    fn a_sweep_keeps_lists_and_tables_whole() {
        let sweep: Sweep = "sites.0.hosts={ range = [1, 2] }, 80,{one_of=[3,4]}".parse().unwrap();
        assert_eq!(sweep.values(), ["{ range = [1, 2] }", "80", "{one_of=[3,4]}"]);
        assert!("a=1,,2".parse::<Sweep>().is_err());
        assert!("a=1,[".parse::<Sweep>().is_err());
    }

    #[test]
    fn sweeps_make_the_cross_product() {
        let sweeps: Vec<Sweep> = ["a=1,2", "b=x,y,z"].map(|text| text.parse().unwrap()).into();
        let points: Vec<String> = combinations(&sweeps).iter().map(|point| point.concat()).collect();
        assert_eq!(points, ["1x", "1y", "1z", "2x", "2y", "2z"]);
        assert_eq!(combinations(&[]), [Vec::<String>::new()]);
    }
}
