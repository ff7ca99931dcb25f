//! Templates: text with `{{ }}` placeholders, each a rule over facts and plan.
//!
//! A host's facts end in files that a privileged process reads, and some facts can be chosen by an unprivileged user of the
//! host (the name of a process). So a placeholder says how its value is written, and no form can break out of its place:
//!
//! | placeholder | gives |
//! | --- | --- |
//! | `{{ rule }}` | a text, number or truth value as it is, a list joined by spaces; only of the characters in [`is_plain`] |
//! | `{{ toml: rule }}` | a TOML value: quoted text, number, array, inline table |
//! | `{{ json: rule }}` | the same in JSON |
//! | `{{ shell: rule }}` | words for a POSIX shell, quoted where they must be |
//!
//! There are no conditions and no loops: those are the rule's matter. A rule's text cannot contain `}}`.
use serde_json::Value;

use crate::{
    catalogue::{Rule, rule::Facts},
    limits,
};

/// A template in its parts.
enum Part<'a> {
    Text(&'a str),
    Placeholder(Form, Rule),
}

#[derive(Clone, Copy)]
enum Form {
    Plain,
    Toml,
    Json,
    Shell,
}

/// Checks that `template` can be read and that its rules compile.
///
/// # Errors
/// What is wrong, for people.
pub(crate) fn check_template(template: &str) -> Result<(), String> {
    for part in parts(template)? {
        if let Part::Placeholder(_, rule) = part {
            rule.compile().map_err(|error| error.to_string())?;
        }
    }
    Ok(())
}

/// Fills a template in.
///
/// # Errors
/// What is wrong, for people.
pub(super) fn fill(template: &str, facts: &Facts) -> Result<String, String> {
    let mut text = String::new();
    for part in parts(template)? {
        match part {
            Part::Text(piece) => text.push_str(piece),
            Part::Placeholder(form, rule) => text.push_str(&write(form, &rule, &value_of(&rule, facts)?)?),
        }
        if text.len() > limits::CONFIGURATION_FILE_BYTES_MAX {
            return Err(format!("its text is longer than {} bytes", limits::CONFIGURATION_FILE_BYTES_MAX));
        }
    }
    Ok(text)
}

/// Fills an argument of a command in: a single plain placeholder that gives a list becomes that many arguments.
///
/// # Errors
/// What is wrong, for people.
pub(super) fn fill_argument(template: &str, facts: &Facts) -> Result<Vec<String>, String> {
    if let [Part::Placeholder(Form::Plain, rule)] = parts(template)?.as_slice()
        && let Value::Array(list) = value_of(rule, facts)?
    {
        return list.iter().map(|entry| write(Form::Plain, rule, entry)).collect();
    }
    Ok(vec![fill(template, facts)?])
}

fn value_of(rule: &Rule, facts: &Facts) -> Result<Value, String> {
    rule.compile().and_then(|compiled| compiled.evaluate(facts)).map_err(|error| error.to_string())
}

fn parts(template: &str) -> Result<Vec<Part<'_>>, String> {
    let mut parts = Vec::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        let (inside, behind) = after.split_once("}}").ok_or("a placeholder is not closed with }}")?;
        let inside = inside.trim();
        let forms = [("toml:", Form::Toml), ("json:", Form::Json), ("shell:", Form::Shell)];
        let found = forms.iter().find_map(|(name, form)| Some((*form, inside.strip_prefix(name)?)));
        let (form, text) = found.unwrap_or((Form::Plain, inside));
        let rule = Rule::try_from(text.trim()).map_err(|error| error.to_string())?;
        parts.extend([Part::Text(before), Part::Placeholder(form, rule)]);
        rest = behind;
    }
    parts.push(Part::Text(rest));
    parts.retain(|part| !matches!(part, Part::Text("")));
    Ok(parts)
}

/// Whether a character means nothing special in configuration files, unit files and shells.
fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || " ._:/,=@%+-".contains(c)
}

fn write(form: Form, rule: &Rule, value: &Value) -> Result<String, String> {
    match form {
        Form::Plain => {
            let text = words(value, rule)?.join(" ");
            match text.chars().find(|c| !is_plain(*c)) {
                None => Ok(text),
                Some(c) => {
                    Err(format!("the value of `{rule}` has the character {c:?}; write it as toml:, json: or shell:"))
                }
            }
        }
        Form::Toml => toml_value(value).ok_or_else(|| format!("the value of `{rule}` has no form in TOML")),
        Form::Json => Ok(value.to_string()),
        Form::Shell => words(value, rule)?
            .iter()
            .map(|word| quote(word, rule))
            .collect::<Result<Vec<_>, _>>()
            .map(|words| words.join(" ")),
    }
}

/// A scalar as one word, a list of scalars as several.
fn words(value: &Value, rule: &Rule) -> Result<Vec<String>, String> {
    match value {
        Value::String(text) => Ok(vec![text.clone()]),
        Value::Bool(_) | Value::Number(_) => Ok(vec![value.to_string()]),
        Value::Array(list) if list.iter().all(|entry| !entry.is_array()) => {
            Ok(list.iter().map(|entry| words(entry, rule)).collect::<Result<Vec<_>, _>>()?.concat())
        }
        _ => Err(format!("the value of `{rule}` is neither a text, a number nor a list of those")),
    }
}

fn quote(word: &str, rule: &Rule) -> Result<String, String> {
    if word.chars().any(char::is_control) {
        return Err(format!("the value of `{rule}` has a control character, which a shell word may not have"));
    }
    let bare = !word.is_empty() && word.chars().all(|c| is_plain(c) && c != ' ' && c != '=');
    Ok(if bare { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) })
}

fn toml_value(value: &Value) -> Option<String> {
    Some(match value {
        Value::Null => return None,
        Value::String(text) => toml_text(text),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::Array(list) => format!("[{}]", list.iter().map(toml_value).collect::<Option<Vec<_>>>()?.join(", ")),
        Value::Object(object) => {
            let entry = |(key, value): (&String, &Value)| Some(format!("{} = {}", toml_text(key), toml_value(value)?));
            format!("{{ {} }}", object.iter().map(entry).collect::<Option<Vec<_>>>()?.join(", "))
        }
    })
}

/// A basic string: JSON's escapes are all TOML's too, and TOML wants DEL escaped as well.
fn toml_text(text: &str) -> String {
    Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn facts(value: Value) -> Facts {
        Facts::new(json!({ "fact": value, "list": ["a", "b c"] }))
    }

    #[test]
    fn each_form_writes_its_own_way() {
        let facts = facts(json!("it's"));
        assert_eq!(fill("x={{ 1 + 1 }};{{list[0]}}", &facts).unwrap(), "x=2;a");
        assert_eq!(fill("{{ list }}", &facts).unwrap(), "a b c");
        assert_eq!(fill("{{ shell: list }} {{ shell: fact }}", &facts).unwrap(), r"a 'b c' 'it'\''s'");
        assert_eq!(fill("{{ toml: list }} {{ json: {'a': fact} }}", &facts).unwrap(), r#"["a", "b c"] {"a":"it's"}"#);
        assert_eq!(fill_argument("{{ list }}", &facts).unwrap(), ["a", "b c"]);
        assert_eq!(fill_argument("--x={{ list }}", &facts).unwrap(), ["--x=a b c"]);
        assert_eq!(fill("no placeholder } } {", &facts).unwrap(), "no placeholder } } {");
        for bad in ["{{ fact", "{{ fact }}", "{{ nothing }}", "{{ }}", "{{ {'a': 1} }}", "{{ toml: null }}"] {
            assert!(fill(bad, &facts).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_fact_cannot_break_out_of_its_place(text in prop_oneof![".{0,20}", "[\"'\\\\\n\r\t$`;#\\[\\]=x]{0,12}"]) {
            let facts = facts(json!(text));
            if let Ok(line) = fill("a = {{ fact }}", &facts) {
                prop_assert!(!line.contains(['\n', '"', '\'', '$', '`', ';', '#', '\\']));
            }
            let read: toml::Table = toml::from_str(&fill("a = {{ toml: fact }}\nb = {{ toml: {fact: [fact]} }}", &facts).unwrap()).unwrap();
            prop_assert_eq!(read["a"].as_str(), Some(text.as_str()));
            prop_assert_eq!(read["b"][&text][0].as_str(), Some(text.as_str()));
            let read: Value = serde_json::from_str(&fill("{{ json: fact }}", &facts).unwrap()).unwrap();
            prop_assert_eq!(read, json!(text));
        }

        #[test]
        fn no_template_panics(template in "([{}]{0,3}[a-z:'.]{0,6} ?){0,8}") {
            let _ = check_template(&template);
            let _ = fill(&template, &facts(json!(1)));
        }
    }
}
