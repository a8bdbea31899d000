// SPDX-License-Identifier: MPL-2.0
//! The reference as a manual page: the Markdown that the other rooms write, as roff. A table becomes a list,
//! each row the words of its first column and below them what is said of it.

use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};
use roff::{Inline, Roff, bold, italic, line_break, roman};

/// A page of section 7.
///
/// # Errors
/// The Markdown has something that is not a heading, paragraph, table or code, or a cell that is missing.
pub fn page(markdown: &str) -> Result<String, String> {
    let version = concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION"));
    let mut writer = Writer::default();
    writer.roff.control("TH", ["STREAMKVQA", "7", "", version, "GStreamer"]);
    for event in Parser::new_ext(markdown, Options::ENABLE_TABLES) {
        writer.take(event)?;
    }
    // The licence is that of the words, which have it in their own files.
    Ok(format!(
        ".\\\" SPDX-License-Identifier: MPL-2.0\n.\\\" Written by `make inspect` (examples/reference).\n{}",
        writer.roff.render()
    ))
}

#[derive(Default)]
struct Writer {
    roff: Roff,
    /// Of the paragraph, heading or cell that has begun.
    words: Vec<Inline>,
    emphasis: bool,
    code: Option<String>,
    /// The cells of the row that has begun; before it the table's head.
    row: Vec<Vec<Inline>>,
    head: Vec<String>,
}

impl Writer {
    fn take(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Text(text) => match &mut self.code {
                Some(code) => code.push_str(&text),
                None if self.emphasis => self.words.push(italic(text.as_ref())),
                None => self.words.push(roman(text.as_ref())),
            },
            Event::Code(text) => self.words.push(bold(text.as_ref())),
            Event::SoftBreak => self.words.push(roman(" ")),
            Event::InlineHtml(tag) if tag.as_ref() == "<br>" => self.words.push(line_break()),
            Event::Start(tag) => self.open(&tag)?,
            Event::End(tag) => self.close(&tag)?,
            other => return Err(format!("a manual page has no {other:?}")),
        }
        Ok(())
    }

    fn open(&mut self, tag: &Tag) -> Result<(), String> {
        match tag {
            Tag::CodeBlock(CodeBlockKind::Fenced(_)) => self.code = Some(String::new()),
            Tag::Emphasis => self.emphasis = true,
            Tag::Heading { .. } | Tag::Paragraph | Tag::Table(_) => {}
            Tag::TableHead | Tag::TableRow | Tag::TableCell => {}
            other => return Err(format!("a manual page has no {other:?}")),
        }
        Ok(())
    }

    fn close(&mut self, tag: &TagEnd) -> Result<(), String> {
        match tag {
            TagEnd::Heading(level) => {
                let title = plain(&std::mem::take(&mut self.words));
                match *level as usize {
                    1 | 2 => self.roff.control("SH", [title.to_uppercase().as_str()]),
                    _ => self.roff.control("SS", [title.as_str()]),
                };
            }
            TagEnd::Paragraph => {
                let words = std::mem::take(&mut self.words);
                // The line of NAME is read by `apropos`, which wants nothing in front of it.
                if !plain(&words).starts_with("streamkvqa - ") {
                    self.roff.control("PP", []);
                }
                self.roff.text(words);
            }
            TagEnd::CodeBlock => {
                let code = self.code.take().unwrap_or_default();
                self.roff.control("PP", []).control("RS", ["4"]).control("nf", []);
                for line in code.lines() {
                    self.roff.text([roman(line)]);
                }
                self.roff.control("fi", []).control("RE", []);
            }
            TagEnd::Emphasis => self.emphasis = false,
            TagEnd::TableCell => self.row.push(std::mem::take(&mut self.words)),
            TagEnd::TableHead => {
                let head = std::mem::take(&mut self.row);
                self.head = head.iter().map(|cell| plain(cell)).collect();
            }
            TagEnd::TableRow => self.item()?,
            _ => {}
        }
        Ok(())
    }

    /// A row of a table: its first cell, behind it what has a column's name, below it the rest.
    fn item(&mut self) -> Result<(), String> {
        let mut cells = std::mem::take(&mut self.row).into_iter().zip(&self.head);
        let (mut term, _) = cells.next().ok_or("a row without cells")?;
        let mut body = Vec::new();
        let mut named = 0;
        for (cell, column) in cells.filter(|(cell, _)| !cell.is_empty()) {
            if column.is_empty() {
                if !body.is_empty() {
                    body.push(line_break());
                }
                body.extend(cell);
            } else {
                let sign = if named == 0 { "  (" } else { "; " };
                term.push(roman(format!("{sign}{column} ")));
                term.extend(cell);
                named += 1;
            }
        }
        if named > 0 {
            term.push(roman(")"));
        }
        if body.is_empty() {
            return Err(format!("nothing is said of {}", plain(&term)));
        }
        self.roff.control("TP", []).text(term).text(body);
        Ok(())
    }
}

fn plain(words: &[Inline]) -> String {
    let text = |word: &Inline| match word {
        Inline::Roman(text) | Inline::Bold(text) | Inline::Italic(text) => text.clone(),
        Inline::LineBreak => " ".into(),
    };
    words.iter().map(text).collect()
}
