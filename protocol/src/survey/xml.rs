//! XML text to a bounded tree of elements and attributes, and canonical text from one.
//!
//! Descriptors use a small part of XML: elements, attributes, comments (read, not kept) and whitespace between elements. A DTD and with
//! it every entity, processing instructions, CDATA sections and namespace prefixes are refused: nothing in a descriptor needs them,
//! and each has served attacks on readers.

use quick_xml::Reader;
use quick_xml::escape::unescape;
use quick_xml::events::{BytesDecl, BytesStart, Event};

use super::error::DescriptorError;
use super::lexical::is_xml_character;
use crate::limits;

/// One element: its name, attributes and child elements, in the order of the document.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Element {
    /// Name without prefix.
    pub name: String,
    /// Attributes with their unescaped values, in the order of the document; names are unique.
    pub attributes: Vec<(String, String)>,
    /// Child elements.
    pub children: Vec<Element>,
}

impl Element {
    /// An element without attributes and children.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }

    /// Adds an attribute.
    #[must_use]
    pub fn with(mut self, attribute: &str, value: impl ToString) -> Self {
        self.attributes.push((attribute.to_owned(), value.to_string()));
        self
    }

    /// Adds an attribute if there is a value.
    #[must_use]
    pub fn with_optional(self, attribute: &str, value: Option<&str>) -> Self {
        match value {
            Some(value) => self.with(attribute, value),
            None => self,
        }
    }

    /// Adds one child.
    #[must_use]
    pub fn with_child(mut self, child: Element) -> Self {
        self.children.push(child);
        self
    }

    /// Adds children.
    #[must_use]
    pub fn with_children(mut self, children: impl IntoIterator<Item = Element>) -> Self {
        self.children.extend(children);
        self
    }

    /// Prints the canonical document: XML declaration, two spaces of indentation per level, attributes in the given order in double
    /// quotes, a line feed after each tag. Equal trees give equal bytes.
    #[must_use]
    pub fn to_document(&self) -> String {
        let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
        self.write(0, &mut text);
        text
    }

    fn write(&self, depth: usize, text: &mut String) {
        let indentation = "  ".repeat(depth);
        text.push_str(&indentation);
        text.push('<');
        text.push_str(&self.name);
        for (name, value) in &self.attributes {
            text.push(' ');
            text.push_str(name);
            text.push_str("=\"");
            escape_into(value, text);
            text.push('"');
        }
        if self.children.is_empty() {
            text.push_str("/>\n");
            return;
        }
        text.push_str(">\n");
        for child in &self.children {
            child.write(depth + 1, text);
        }
        text.push_str(&indentation);
        text.push_str("</");
        text.push_str(&self.name);
        text.push_str(">\n");
    }
}

/// The same escapes as the survey script writes, so that its output is nearly canonical already.
fn escape_into(value: &str, text: &mut String) {
    for character in value.chars() {
        match character {
            '&' => text.push_str("&amp;"),
            '<' => text.push_str("&lt;"),
            '>' => text.push_str("&gt;"),
            '"' => text.push_str("&quot;"),
            '\t' => text.push_str("&#9;"),
            '\n' => text.push_str("&#10;"),
            '\r' => text.push_str("&#13;"),
            other => text.push(other),
        }
    }
}

/// Reads a document into its root element.
///
/// # Errors
/// [`DescriptorError::TooLarge`] before anything is read, [`DescriptorError::NotXml`] and [`DescriptorError::Forbidden`].
pub fn read_document(bytes: &[u8]) -> Result<Element, DescriptorError> {
    if bytes.len() > limits::DESCRIPTOR_BYTES_MAX {
        return Err(DescriptorError::TooLarge { length: bytes.len(), limit: limits::DESCRIPTOR_BYTES_MAX });
    }
    let text = std::str::from_utf8(bytes).map_err(|error| DescriptorError::NotXml {
        offset: error.valid_up_to() as u64,
        path: "/".into(),
        problem: "not UTF-8".into(),
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if let Some((offset, character)) = text.char_indices().find(|(_, character)| !is_xml_character(*character)) {
        return Err(DescriptorError::NotXml {
            offset: offset as u64,
            path: "/".into(),
            problem: format!("the character U+{:04X} cannot stand in XML", u32::from(character)),
        });
    }
    TreeReader::new(text).read()
}

/// The state of one reading: the open elements, innermost last.
struct TreeReader<'a> {
    reader: Reader<&'a [u8]>,
    open: Vec<Element>,
    root: Option<Element>,
    at_start: bool,
}

impl<'a> TreeReader<'a> {
    fn new(text: &'a str) -> Self {
        let mut reader = Reader::from_str(text);
        let config = reader.config_mut();
        config.check_comments = true;
        config.check_end_names = true;
        Self { reader, open: Vec::new(), root: None, at_start: true }
    }

    fn read(mut self) -> Result<Element, DescriptorError> {
        loop {
            let event = self.reader.read_event().map_err(|error| self.not_xml(&error.to_string()))?;
            match event {
                Event::Start(start) => {
                    let element = self.element(&start)?;
                    if self.open.len() >= limits::DESCRIPTOR_DEPTH_MAX {
                        return Err(self.not_xml("elements are nested too deeply"));
                    }
                    self.open.push(element);
                }
                Event::Empty(start) => {
                    let element = self.element(&start)?;
                    self.close(element)?;
                }
                Event::End(_) => match self.open.pop() {
                    Some(element) => self.close(element)?,
                    None => return Err(self.not_xml("an end tag without its start tag")),
                },
                Event::Text(text) => self.check_text(&text.into_inner())?,
                Event::Decl(declaration) => self.check_declaration(&declaration)?,
                Event::Comment(_) => {}
                Event::CData(_) => return Err(self.forbidden("a CDATA section")),
                Event::PI(_) => return Err(self.forbidden("a processing instruction")),
                Event::DocType(_) => return Err(self.forbidden("a document type declaration")),
                Event::GeneralRef(_) => return Err(self.forbidden("text between elements")),
                Event::Eof => break,
            }
            self.at_start = false;
        }
        if !self.open.is_empty() {
            return Err(self.not_xml("the document ends inside this element"));
        }
        let problem = self.not_xml("there is no element");
        self.root.ok_or(problem)
    }

    fn element(&self, start: &BytesStart<'_>) -> Result<Element, DescriptorError> {
        if self.open.is_empty() && self.root.is_some() {
            return Err(self.not_xml("a second root element"));
        }
        let raw = start.attributes_raw();
        check_spacing(raw).map_err(|problem| self.not_xml(problem))?;
        let mut element = Element::new(start.name().as_ref());
        if element.name.contains(':') {
            return Err(self.forbidden("a namespace prefix"));
        }
        for attribute in start.attributes() {
            let attribute = attribute.map_err(|error| self.not_xml(&error.to_string()))?;
            let name = attribute.key.as_ref().to_owned();
            if name.contains(':') {
                return Err(self.forbidden("a namespace prefix"));
            }
            let value = self.attribute_value(&attribute.value)?;
            element.attributes.push((name, value));
        }
        Ok(element)
    }

    /// Normalises and unescapes as XML 1.0, 3.3.3, says: literal whitespace becomes a space, references stay what they name.
    fn attribute_value(&self, raw: &str) -> Result<String, DescriptorError> {
        if raw.contains('<') {
            return Err(self.not_xml("a < in an attribute value"));
        }
        let spaced = raw.replace("\r\n", " ").replace(['\t', '\n', '\r'], " ");
        let value = unescape(&spaced).map_err(|error| self.not_xml(&error.to_string()))?;
        match value.chars().find(|character| !is_xml_character(*character)) {
            Some(character) => {
                Err(self.not_xml(&format!("a reference to the character U+{:04X}", u32::from(character))))
            }
            None => Ok(value.into_owned()),
        }
    }

    fn close(&mut self, element: Element) -> Result<(), DescriptorError> {
        match self.open.last_mut() {
            Some(parent) => parent.children.push(element),
            None if self.root.is_none() => self.root = Some(element),
            None => return Err(self.not_xml("a second root element")),
        }
        Ok(())
    }

    fn check_text(&self, text: &str) -> Result<(), DescriptorError> {
        if text.contains(|character| !matches!(character, ' ' | '\t' | '\n' | '\r')) {
            return Err(self.forbidden("text between elements"));
        }
        Ok(())
    }

    fn check_declaration(&self, declaration: &BytesDecl<'_>) -> Result<(), DescriptorError> {
        if !self.at_start {
            return Err(self.not_xml("an XML declaration that is not at the start"));
        }
        let version = declaration.version().map_err(|error| self.not_xml(&error.to_string()))?;
        if version.as_ref() != "1.0" {
            return Err(self.not_xml("an XML version other than 1.0"));
        }
        match declaration.encoding() {
            None => Ok(()),
            Some(Ok(encoding)) if encoding.eq_ignore_ascii_case("UTF-8") => Ok(()),
            Some(Ok(_)) => Err(self.forbidden("an encoding other than UTF-8")),
            Some(Err(error)) => Err(self.not_xml(&error.to_string())),
        }
    }

    fn path(&self) -> String {
        if self.open.is_empty() {
            return "/".into();
        }
        self.open.iter().fold(String::new(), |path, element| path + "/" + &element.name)
    }

    fn not_xml(&self, problem: &str) -> DescriptorError {
        DescriptorError::NotXml {
            offset: self.reader.buffer_position(),
            path: self.path(),
            problem: problem.to_owned(),
        }
    }

    fn forbidden(&self, construct: &'static str) -> DescriptorError {
        DescriptorError::Forbidden { path: self.path(), construct }
    }
}

/// XML wants whitespace before each attribute; the reader underneath does not insist.
fn check_spacing(attributes: &str) -> Result<(), &'static str> {
    let mut quote = None;
    let mut after_value = false;
    for character in attributes.chars() {
        match quote {
            Some(open) if character == open => {
                quote = None;
                after_value = true;
            }
            Some(_) => {}
            None if after_value && !character.is_ascii_whitespace() && character != '/' => {
                return Err("no space between two attributes");
            }
            None => {
                after_value = false;
                if matches!(character, '"' | '\'') {
                    quote = Some(character);
                }
            }
        }
    }
    Ok(())
}
