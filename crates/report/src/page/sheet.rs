//! The page around its sections: head, style, scripts. It loads nothing, and a policy in its head
//! has the browser refuse whatever would.

use std::fmt::Write;

use super::figure::Figure;
use super::html::{lines, text};

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("page.js");
/// plotly.js, packed by the build script.
const PLOTLY: &str = include_str!(concat!(env!("OUT_DIR"), "/plotly.js.gz.base64"));

/// What a browser lets the page do: run and style what it brings along, and save pictures of plots.
const POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; \
                      img-src data: blob:; base-uri 'none'; form-action 'none'";

/// A page that is being written, from the top.
#[derive(Debug)]
pub struct Page {
    html: String,
    sections: usize,
    figures: usize,
    /// Scripts of parts that not every page has.
    scripts: Vec<&'static str>,
}

impl Page {
    /// A page with its title and its first line, which says what came out.
    pub fn new(title: &str, lead: &str) -> Page {
        let (title, lead) = (text(title), text(lead));
        let html = format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta name=\"color-scheme\" content=\"light dark\">\n\
             <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
             <header>\n<h1>{lead}</h1>\n<p class=\"title\">{title} \
             <button type=\"button\" id=\"theme\" hidden>dark or light</button></p>\n</header>\n\
             <main>\n<noscript><p>Plots, sorting and CSV need scripts; the tables do not.</p>\
             </noscript>\n"
        );
        Page { html, sections: 0, figures: 0, scripts: Vec::new() }
    }

    /// Begins a section.
    pub fn section(&mut self, heading: &str) {
        self.close();
        self.sections += 1;
        let (number, heading) = (self.sections, text(heading));
        // Writing to a String cannot fail.
        let _ = write!(
            self.html,
            "<section aria-labelledby=\"s{number}\">\n<h2 id=\"s{number}\">{heading}</h2>\n"
        );
    }

    /// A paragraph.
    pub fn paragraph(&mut self, value: &str) {
        self.push(&super::html::paragraph(value));
    }

    /// Text whose lines and spaces stay.
    pub fn preformatted(&mut self, value: &str) {
        let _ = writeln!(self.html, "<pre tabindex=\"0\">{}</pre>", lines(value));
    }

    /// A figure, or nothing where it has nothing to show.
    pub fn figure(&mut self, figure: &Figure) {
        self.figures += 1;
        let html = figure.html(&format!("f{}", self.figures));
        self.push(&html);
    }

    /// A script that a part of the page needs; it runs before the page's own.
    pub(crate) fn script(&mut self, script: &'static str) {
        self.scripts.push(script);
    }

    /// HTML as it is.
    pub(crate) fn push(&mut self, html: &str) {
        self.html.push_str(html);
    }

    /// The whole page.
    pub fn finish(mut self) -> String {
        self.close();
        let own: String =
            self.scripts.iter().map(|script| format!("<script>\n{script}</script>\n")).collect();
        let _ = write!(
            self.html,
            "</main>\n{own}<script type=\"application/octet-stream\" id=\"plotly\">{PLOTLY}</script>\n\
             <script>\n{SCRIPT}</script>\n</body>\n</html>\n"
        );
        self.html
    }

    fn close(&mut self) {
        if self.sections > 0 {
            self.push("</section>\n");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_brings_everything_along() {
        let mut page = Page::new("a <title>", "a & b");
        page.section("One");
        page.preformatted("x\n  <y>");
        let html = page.finish();
        assert!(
            html.contains("<title>a &lt;title&gt;</title>") && html.contains("<h1>a &amp; b</h1>")
        );
        assert!(html.contains("x\n  &lt;y&gt;</pre>\n</section>\n</main>"));
        let own = html.replace(PLOTLY, "");
        for absent in ["http:", "https:", "<link", "src=", "url(", "@import", "fetch(", "eval("] {
            assert!(!own.contains(absent), "{absent}");
        }
        assert!(PLOTLY.len() > 1_000_000 && !PLOTLY.contains('<'));
        // Room for the numbers of a large comparison in a page of 6 MB.
        assert!(html.len() < 2_200_000, "{}", html.len());
    }
}
