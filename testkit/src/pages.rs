//! The code blocks of README and the guides.

use crate::folders;
use std::fs;
use std::path::Path;

/// A code block with its language and name, if it has them.
pub struct Block {
    pub page: String,
    pub language: String,
    pub name: String,
    pub text: String,
}

/// Returns all code blocks of a page, in the order of the page.
pub fn blocks_of(page: &str) -> Vec<Block> {
    let text = fs::read_to_string(folders::root().join(page)).unwrap();
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for line in text.lines() {
        match (line.trim_start().strip_prefix("```"), &mut open) {
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some(fence), None) => {
                let (language, name) = fence.split_once(' ').unwrap_or((fence, ""));
                open = Some(Block {
                    page: page.to_owned(),
                    language: language.to_owned(),
                    name: name.to_owned(),
                    text: String::new(),
                });
            }
            (None, Some(block)) => block.text += &format!("{line}\n"),
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "{page}: a block without end");
    blocks
}

/// Returns the paths of all pages, from the root of the workspace.
pub fn pages() -> Vec<String> {
    let mut pages: Vec<String> = ["README.md", "SECURITY.md", "CONTRIBUTING.md"]
        .map(str::to_owned)
        .to_vec();
    for entry in fs::read_dir(folders::root().join("docs")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if Path::new(&name).extension() == Some("md".as_ref()) {
            pages.push(format!("docs/{name}"));
        }
    }
    pages
}

/// Returns the text of the only block with this name.
#[track_caller]
pub fn block(page: &str, name: &str) -> String {
    let mut found = blocks_of(page)
        .into_iter()
        .filter(|block| block.name == name);
    let block = found
        .next()
        .unwrap_or_else(|| panic!("{page}: there is no block {name}"));
    assert!(
        found.next().is_none(),
        "{page}: there are two blocks {name}"
    );
    block.text
}
