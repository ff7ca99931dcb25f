//! The HTML report of one session (R85, R95): one page that needs nothing else and shows what was installed, why, what the installers
//! wrote, who approved it and what was checked.
//!
//! The page travels to the host and to headquarters, so that it is bounded: where a session wrote more than fits, texts and lists are cut
//! evenly, the page says so, and the whole of it stays with the station (R85). All that came from outside is escaped, and made visible
//! where it would change how the page reads.
mod checks;
mod page;
mod text;

use askama::Template;
use branchline_protocol::{
    ids::{NodeId, SiteName},
    limits::REPORT_HTML_BYTES_MAX,
    plan::Plan,
    time::UnixSeconds,
};
use branchline_station_role::station::SessionReport;
use thiserror::Error;

use page::{Budget, Page};

/// Everything that the page shows.
#[derive(Clone, Copy, Debug)]
pub struct ReportInput<'a> {
    /// The site.
    pub site: &'a SiteName,
    /// The station that makes the report.
    pub station: NodeId,
    /// The session: the station's view of it and what the host reported.
    pub session: &'a SessionReport,
    /// The plan, for explanations, ports and files; without it the names alone are shown.
    pub plan: Option<&'a Plan>,
    /// When the report is made, by the station's wall clock.
    pub made_at: UnixSeconds,
}

/// Why there is no page.
#[derive(Debug, Error)]
pub enum ReportError {
    /// The template failed.
    #[error("the HTML report of {host} could not be rendered")]
    Template {
        /// The host's name.
        host: String,
        /// What the template engine says.
        source: askama::Error,
    },
    /// Even with every list and text cut to the least, the page is too long.
    #[error(
        "the HTML report of {host} has {bytes} bytes after cutting, at most {REPORT_HTML_BYTES_MAX} may travel; this is a defect"
    )]
    TooLong {
        /// The host's name.
        host: String,
        /// Its length.
        bytes: usize,
    },
}

/// Renders the page: valid HTML5 of at most `REPORT_HTML_BYTES_MAX` bytes, the same for the same input.
///
/// # Errors
/// See [`ReportError`]; neither happens with any input that the machines can make.
pub fn render(input: &ReportInput<'_>) -> Result<String, ReportError> {
    let host = || text::line(&input.session.view.host_name, 80);
    let mut budget = Budget::FIRST;
    loop {
        let html =
            Page::new(input, budget).render().map_err(|source| ReportError::Template { host: host(), source })?;
        if html.len() <= REPORT_HTML_BYTES_MAX {
            return Ok(html);
        }
        budget = match budget.tighter() {
            Some(tighter) => tighter,
            None => return Err(ReportError::TooLong { host: host(), bytes: html.len() }),
        };
    }
}

#[cfg(test)]
mod tests;
