//! The token without which headquarters' HTTP says nothing.
use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use branchline_protocol::ids::Hash;

use crate::config::{random_bytes, write_atomically};

/// Shortest token that is taken from a file, in characters.
const TOKEN_CHARACTERS_MIN: usize = 20;
/// Longest one.
const TOKEN_CHARACTERS_MAX: usize = 512;

/// What a reader must show: `Authorization: Bearer TOKEN`, as Prometheus' `credentials_file` sends it, or the token as the
/// password of any user, as browsers ask for it. Only its hash is kept, so that comparing takes the same time for every guess.
#[derive(Clone)]
pub struct HttpToken {
    hash: blake3::Hash,
    file: PathBuf,
}

impl HttpToken {
    /// Reads the token's file, and makes one, with 256 random bits and mode 0640, where there is none.
    ///
    /// # Errors
    /// It cannot be read or made, or what it holds is too short, too long or no word.
    pub fn read_or_make(file: &Path) -> Result<Self> {
        let text = match std::fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let text = format!("{}\n", Hash(random_bytes()?));
                write_atomically(file, text.as_bytes(), 0o640)?;
                text
            }
            Err(error) => return Err(error).with_context(|| format!("reading the HTTP token {}", file.display())),
        };
        let token = text.trim();
        let characters = token.chars().count();
        if !token.chars().all(|character| character.is_ascii_graphic())
            || !(TOKEN_CHARACTERS_MIN..=TOKEN_CHARACTERS_MAX).contains(&characters)
        {
            bail!(
                "the HTTP token {} must be one word of {TOKEN_CHARACTERS_MIN} to {TOKEN_CHARACTERS_MAX} printable ASCII \
                 characters; remove the file and one is made",
                file.display()
            );
        }
        Ok(Self { hash: blake3::hash(token.as_bytes()), file: file.to_owned() })
    }

    fn is_shown_by(&self, headers: &HeaderMap) -> bool {
        let Some(value) = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()) else {
            return false;
        };
        let Some((scheme, credentials)) = value.split_once(' ') else { return false };
        let (scheme, credentials) = (scheme.to_ascii_lowercase(), credentials.trim());
        let shown = match scheme.as_str() {
            "bearer" => credentials.as_bytes().to_vec(),
            "basic" => {
                let Ok(decoded) = BASE64_STANDARD.decode(credentials) else { return false };
                let Some(colon) = decoded.iter().position(|byte| *byte == b':') else { return false };
                decoded[colon + 1..].to_vec()
            }
            _ => return false,
        };
        blake3::hash(&shown) == self.hash
    }
}

/// Lets a request through that shows the token; every other one, whatever it asks for, learns only where the token is.
pub(super) async fn require(State(token): State<HttpToken>, request: Request, next: Next) -> Response {
    if token.is_shown_by(request.headers()) {
        return next.run(request).await;
    }
    let reason = format!(
        "headquarters asks for its HTTP token: `Authorization: Bearer TOKEN`, or the token as the password; it is in the file \
         {} of headquarters\n",
        token.file.file_name().unwrap_or_default().to_string_lossy()
    );
    let mut response = (StatusCode::UNAUTHORIZED, reason).into_response();
    for challenge in ["Bearer realm=\"branchline\"", "Basic realm=\"branchline\", charset=\"UTF-8\""] {
        response.headers_mut().append(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    }
    response
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn shown(token: &HttpToken, authorization: &[u8]) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, HeaderValue::from_bytes(authorization).unwrap());
        token.is_shown_by(&headers)
    }

    #[test]
    fn a_made_token_is_asked_for_in_either_form_and_nothing_else_is_taken() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("http.token");
        let token = HttpToken::read_or_make(&file).unwrap();
        let text = std::fs::read_to_string(&file).unwrap().trim().to_owned();
        assert_eq!(text.len(), 64);
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(HttpToken::read_or_make(&file).unwrap().hash, token.hash, "it is made once");

        let basic =
            |user: &str, password: &str| format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")));
        assert!(!token.is_shown_by(&HeaderMap::new()));
        for good in [format!("Bearer {text}"), format!("bearer {text}"), basic("", &text), basic("ada", &text)] {
            assert!(shown(&token, good.as_bytes()), "{good}");
        }
        let wrong = [
            text.clone(),
            "Bearer".to_owned(),
            "Bearer ".to_owned(),
            format!("Bearer {}", &text[1..]),
            format!("Bearer {text}0"),
            format!("Digest {text}"),
            basic(&text, ""),
            format!("Basic {text}"),
            "Basic %%%".to_owned(),
        ];
        for wrong in wrong {
            assert!(!shown(&token, wrong.as_bytes()), "{wrong}");
        }
        assert!(!shown(&token, b"Bearer \xff\xfe"));
    }

    #[test]
    fn a_file_that_holds_no_token_is_refused_by_name() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("http.token");
        for text in
            ["", "short", "two words of which each is long enough", &"x".repeat(513), "ünderneath-the-ünderneath"]
        {
            std::fs::write(&file, text).unwrap();
            let error = HttpToken::read_or_make(&file).err().unwrap().to_string();
            assert!(error.contains("http.token") && error.contains("20 to 512"), "{error}");
        }
        assert!(HttpToken::read_or_make(&directory.path().join("no/such/http.token")).is_err());
    }
}
