//! Secrets on command lines (R49): the second net, under the one in the survey script.
//!
//! The rules are the script's (`prelude.sh`, `redact`), over one argument after the other; when in doubt they redact. A value that
//! follows a word of [`SECRET_WORDS`] goes, as does what follows `-p`, `-u` up to a colon, and user information in a URL. What has
//! been redacted once stays as it is.

use super::descriptor::Descriptor;

/// What stands in place of a secret.
pub const REDACTED: &str = "[redacted]";

/// Words that make a key a secret's key, in lowercase.
pub const SECRET_WORDS: [&str; 15] = [
    "passw",
    "passphrase",
    "passcode",
    "pwd",
    "token",
    "secret",
    "api-key",
    "api_key",
    "apikey",
    "access-key",
    "access_key",
    "private-key",
    "private_key",
    "credential",
    "authorization",
];

/// What the argument before says about this one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Expectation {
    Ordinary,
    Secret,
    UserAndSecret,
}

/// Redacts one command line whose arguments are separated by spaces.
#[must_use]
pub fn redact_command(command: &str) -> String {
    let mut redacted: Vec<String> = Vec::new();
    let mut expectation = Expectation::Ordinary;
    for argument in command.split(' ') {
        let is_value = !argument.is_empty() && !argument.starts_with("--");
        let (text, next) = match expectation {
            Expectation::Secret if is_value => (REDACTED.into(), after_scheme(argument)),
            Expectation::UserAndSecret if is_value && argument.contains(':') => {
                let user = argument.split(':').next().unwrap_or_default();
                (format!("{user}:{REDACTED}"), Expectation::Ordinary)
            }
            _ => redact_argument(argument),
        };
        redacted.push(text);
        expectation = next;
    }
    redacted.join(" ")
}

/// A header such as "Authorization: Bearer abc" has its secret one word later.
fn after_scheme(argument: &str) -> Expectation {
    if argument.eq_ignore_ascii_case("bearer") || argument.eq_ignore_ascii_case("basic") {
        Expectation::Secret
    } else {
        Expectation::Ordinary
    }
}

/// Redacts the user information of every URL in a text.
#[must_use]
pub fn redact_url(text: &str) -> String {
    match (text.find("://"), text.rfind('@')) {
        (Some(start), Some(end)) if start < end => {
            format!("{}://{REDACTED}{}", &text[..start], &text[end..])
        }
        _ => text.to_owned(),
    }
}

/// Redacts whatever a descriptor holds that may carry a secret: command lines, and the sources that signatures and mounts name.
pub fn redact_descriptor(descriptor: &mut Descriptor) {
    let limit = crate::limits::SURVEY_COMMAND_CHARACTERS_MAX;
    let cut = |text: String| text.chars().take(limit).collect::<String>();
    for process in &mut descriptor.host.software.list {
        process.command = cut(redact_command(&process.command));
    }
    for filesystem in &mut descriptor.host.filesystems {
        filesystem.source = filesystem.source.take().map(|source| cut(redact_url(&source)));
    }
    for fact in descriptor
        .host
        .signatures
        .iter_mut()
        .flat_map(|signature| &mut signature.items)
        .flat_map(|item| &mut item.facts)
    {
        fact.value = cut(redact_url(&fact.value));
    }
}

/// Redacts one argument, and says what that means for the next.
fn redact_argument(argument: &str) -> (String, Expectation) {
    let argument = redact_url(argument);
    let lowercase = argument.to_ascii_lowercase();
    if let Some(end_of_word) = secret_word_end(&lowercase) {
        let rest = &argument[end_of_word..];
        return match rest.find(['=', ':']) {
            Some(separator) if rest[separator + 1..].is_empty() => (argument, Expectation::Secret),
            Some(separator) => {
                let key = &argument[..=end_of_word + separator];
                (format!("{key}{REDACTED}"), Expectation::Ordinary)
            }
            None if argument.starts_with('-') => (argument, Expectation::Secret),
            None => (argument, Expectation::Ordinary),
        };
    }
    match argument.as_str() {
        "-p" => (argument, Expectation::Secret),
        "-u" | "--user" | "--proxy-user" => (argument, Expectation::UserAndSecret),
        attached if attached.starts_with("-p") => (format!("-p{REDACTED}"), Expectation::Ordinary),
        _ => (argument, Expectation::Ordinary),
    }
}

/// Where the first secret word ends, in bytes.
fn secret_word_end(lowercase: &str) -> Option<usize> {
    let word = SECRET_WORDS.iter().filter_map(|word| lowercase.find(word).map(|start| start + word.len())).min();
    // "pass" alone is a key only as a whole word: "--pass", "db_pass=", not "bypass" and not a path "/compass/".
    let pass = ["-pass", "_pass"]
        .iter()
        .filter_map(|word| lowercase.find(word).map(|start| start + word.len()))
        .chain(lowercase.starts_with("pass").then_some(4))
        .find(|end| matches!(lowercase.as_bytes().get(*end), None | Some(b'=' | b':')));
    match (word, pass) {
        (Some(word), Some(pass)) => Some(word.min(pass)),
        (word, pass) => word.or(pass),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn secrets_go_and_the_rest_stays() {
        for (command, expected) in [
            ("mysqld --datadir=/var/lib/mysql", "mysqld --datadir=/var/lib/mysql"),
            ("mysql -uroot -phunter2 db", "mysql -uroot -p[redacted] db"),
            ("mysql --password=hunter2", "mysql --password=[redacted]"),
            ("mysql --password hunter2 db", "mysql --password [redacted] db"),
            ("agent --api-token abc --verbose", "agent --api-token [redacted] --verbose"),
            ("env PGPASSWORD=x psql", "env PGPASSWORD=[redacted] psql"),
            ("fetch https://joe:s3cr3t@example.org/a", "fetch https://[redacted]@example.org/a"),
            ("get http://x/?token=abc&b=c", "get http://x/?token=[redacted]"),
            ("curl -H Authorization: Bearer abc http://x", "curl -H Authorization: [redacted] [redacted] http://x"),
            ("tool --pass=abc --bypass=yes", "tool --pass=[redacted] --bypass=yes"),
            ("sshpass -p abc ssh host", "sshpass -p [redacted] ssh host"),
            ("curl -u joe:abc http://x", "curl -u joe:[redacted] http://x"),
            ("a --secret-file=/etc/s", "a --secret-file=[redacted]"),
        ] {
            assert_eq!(redact_command(command), expected);
            assert_eq!(redact_command(expected), expected, "redaction is not stable");
        }
    }

    proptest::proptest! {
        #[test]
        fn redaction_is_stable_and_never_panics(command in ".{0,200}") {
            let once = redact_command(&command);
            proptest::prop_assert_eq!(redact_command(&once), once);
        }

        #[test]
        fn a_value_after_a_secret_key_is_gone(key in "[a-z-]{0,5}(password|token|secret)[a-z-]{0,5}", value in "[A-Z0-9]{6,20}") {
            let redacted = redact_command(&format!("prog --{key}={value} --{key} {value} -x"));
            proptest::prop_assert!(!redacted.contains(&value), "{}", redacted);
        }
    }
}
