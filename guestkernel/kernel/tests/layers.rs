//! Imports look down only. The layers are the list in `CONTRIBUTING.md`, top first; this test reads
//! the kernel's sources and fails on a path that leads to a layer above, or to another module of the
//! same layer. Tests (`#[cfg(test)]`) may use anything.

use proc_macro2::{TokenStream, TokenTree};
use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use syn::punctuated::Punctuated;
use syn::visit::{self, Visit};
use syn::{Attribute, Item, ItemMod, ItemUse, Meta, Token, UseTree};

/// Paths that lead up and are about to go: each leads from a module to a module. The list only
/// shrinks: an entry that nothing needs any more fails the test, too.
const KNOWN: &[(&str, &str)] = &[];

/// A module, by the names on the way to it from the root of the crate.
type Module = Vec<String>;

/// A path in a source file that leads to another module.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Reference {
    from: Module,
    to: Module,
    line: usize,
}

impl fmt::Display for Reference {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (from, to) = (self.from.join("::"), self.to.join("::"));
        write!(out, "{from} (line {}) uses {to}", self.line)
    }
}

/// The layers, top first: the modules in each.
struct Layers(Vec<Vec<Module>>);

impl Layers {
    /// Reads the list: the block of `text` that is fenced as `layers`, with a layer a line, whose
    /// modules come before two spaces and the description.
    fn read(text: &str) -> Self {
        let (_, block) = text.split_once("```layers\n").expect("a list of layers");
        let (block, _) = block.split_once("```").expect("the end of the list");
        let module = |name: &str| name.split("::").map(str::to_owned).collect();
        let layer = |line: &str| {
            let (names, _) = line.split_once("  ").expect("a description");
            names.split(' ').map(module).collect()
        };
        Self(block.lines().map(layer).collect())
    }

    /// Where `path` is: the number of the layer and of the module in it, for the longest entry that
    /// `path` begins with.
    fn place(&self, path: &[String]) -> Option<(usize, usize)> {
        let all = self.0.iter().enumerate();
        all.flat_map(|(layer, modules)| {
            let numbered = modules.iter().enumerate();
            numbered.map(move |(number, module)| (module, (layer, number)))
        })
        .filter(|(module, _)| path.starts_with(module))
        .max_by_key(|(module, _)| module.len())
        .map(|(_, place)| place)
    }

    /// Why `reference` is wrong, if it is.
    fn check(&self, reference: &Reference) -> Result<(), String> {
        let Some(from) = self.place(&reference.from) else {
            return Err(format!("{} is in no layer", reference.from.join("::")));
        };
        let Some(to) = self.place(&reference.to) else {
            return Err(format!("{reference}, which is in no layer"));
        };
        if to == from || to.0 > from.0 {
            return Ok(());
        }
        let place = if to.0 == from.0 {
            "beside it"
        } else {
            "above it"
        };
        Err(format!("{reference}, which is {place}"))
    }
}

/// Whether code with these attributes is compiled for tests only.
fn is_test(attributes: &[Attribute]) -> bool {
    fn needs_test(meta: &Meta) -> bool {
        if meta.path().is_ident("test") {
            return true;
        }
        let Meta::List(list) = meta else { return false };
        let parse = Punctuated::<Meta, Token![,]>::parse_terminated;
        let Ok(nested) = list.parse_args_with(parse) else {
            return false;
        };
        match list.path.get_ident().map(ToString::to_string).as_deref() {
            Some("all") => nested.iter().any(needs_test),
            Some("any") => nested.iter().all(needs_test),
            _ => false,
        }
    }
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute
                .parse_args::<Meta>()
                .is_ok_and(|meta| needs_test(&meta))
    })
}

/// Collects the references of one module, and of the modules inside it.
struct Reader {
    module: Module,
    /// The file's directory for the modules that it declares; `None` if there is no file.
    directory: Option<PathBuf>,
    children: BTreeSet<String>,
    found: Vec<Reference>,
}

impl Reader {
    /// Reads the module `module`, which is in `file`, and all below it.
    fn read_file(module: Module, file: &Path, directory: PathBuf) -> Vec<Reference> {
        let text = fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        Self::read(module, &text, Some(directory))
    }

    fn read(module: Module, text: &str, directory: Option<PathBuf>) -> Vec<Reference> {
        let parsed = syn::parse_file(text).unwrap_or_else(|e| panic!("{}: {e}", module.join("::")));
        let mut reader = Self {
            module,
            directory,
            children: children(&parsed.items),
            found: Vec::new(),
        };
        parsed.items.iter().for_each(|item| reader.visit_item(item));
        reader.found
    }

    /// Notes a path as it is written, unless it leads out of the crate.
    fn note(&mut self, path: &[String], line: usize) {
        let mut names = path.iter().map(String::as_str).peekable();
        let mut to = match names.peek() {
            // Not a path, such as `self` and the scope of `pub(crate)`.
            _ if path.len() < 2 => return,
            Some(&"crate") => Vec::new(),
            Some(&"self" | &"super") => self.module.clone(),
            Some(first) if self.children.contains(*first) => self.module.clone(),
            _ => return,
        };
        while let Some(name) = names.next_if(|name| ["crate", "self", "super"].contains(name)) {
            if name == "super" {
                to.pop();
            }
        }
        to.extend(names.map(str::to_owned));
        let from = self.module.clone();
        self.found.push(Reference { from, to, line });
    }

    fn note_use(&mut self, path: &mut Vec<String>, tree: &UseTree, line: usize) {
        match tree {
            UseTree::Path(part) => {
                path.push(part.ident.to_string());
                self.note_use(path, &part.tree, part.ident.span().start().line);
                path.pop();
            }
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.note_use(path, tree, line);
                }
            }
            UseTree::Name(part) => self.note_last(path, part.ident.to_string(), line),
            UseTree::Rename(part) => self.note_last(path, part.ident.to_string(), line),
            UseTree::Glob(_) => self.note_last(path, "*".to_owned(), line),
        }
    }

    fn note_last(&mut self, path: &[String], last: String, line: usize) {
        let mut path = path.to_vec();
        path.push(last);
        self.note(&path, line);
    }

    /// Notes the paths in the tokens of a macro, which nobody parses.
    fn note_tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let mut start = 0;
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Punct(punct) if punct.as_char() == ':' && !path.is_empty() => {
                    colons += 1;
                    continue;
                }
                TokenTree::Ident(ident) if !path.is_empty() && colons == 2 => {
                    path.push(ident.to_string());
                    colons = 0;
                    continue;
                }
                _ => {}
            }
            self.note(&std::mem::take(&mut path), start);
            colons = 0;
            match token {
                TokenTree::Ident(ident) => {
                    start = ident.span().start().line;
                    path.push(ident.to_string());
                }
                TokenTree::Group(group) => self.note_tokens(group.stream()),
                _ => {}
            }
        }
        self.note(&path, start);
    }
}

/// The names of the modules that `items` declare.
fn children(items: &[Item]) -> BTreeSet<String> {
    let name = |item: &Item| match item {
        Item::Mod(module) => Some(module.ident.to_string()),
        _ => None,
    };
    items.iter().filter_map(name).collect()
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_item(&mut self, item: &'ast Item) {
        let attributes = match item {
            Item::Const(item) => &item.attrs,
            Item::Enum(item) => &item.attrs,
            Item::Fn(item) => &item.attrs,
            Item::Impl(item) => &item.attrs,
            Item::Macro(item) => &item.attrs,
            Item::Mod(item) => &item.attrs,
            Item::Static(item) => &item.attrs,
            Item::Struct(item) => &item.attrs,
            Item::Trait(item) => &item.attrs,
            Item::Type(item) => &item.attrs,
            Item::Use(item) => &item.attrs,
            _ => return visit::visit_item(self, item),
        };
        if !is_test(attributes) {
            visit::visit_item(self, item);
        }
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        if !is_test(&item.attrs) {
            visit::visit_impl_item_fn(self, item);
        }
    }

    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        let name = item.ident.to_string();
        let mut module = self.module.clone();
        module.push(name.clone());
        let directory = self
            .directory
            .as_ref()
            .map(|directory| directory.join(&name));
        if let Some((_, items)) = &item.content {
            let mut inner = Self {
                module,
                directory,
                children: children(items),
                found: Vec::new(),
            };
            items.iter().for_each(|item| inner.visit_item(item));
            self.found.append(&mut inner.found);
        } else if let Some(directory) = directory {
            let own = directory.join("mod.rs");
            let file = match own.exists() {
                true => own,
                false => directory.with_extension("rs"),
            };
            self.found
                .append(&mut Self::read_file(module, &file, directory));
        }
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        let line = item.use_token.span.start().line;
        if item.leading_colon.is_none() {
            self.note_use(&mut Vec::new(), &item.tree, line);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names: Vec<_> = path
            .segments
            .iter()
            .map(|part| part.ident.to_string())
            .collect();
        if path.leading_colon.is_none() {
            let line = path
                .segments
                .first()
                .map_or(0, |part| part.ident.span().start().line);
            self.note(&names, line);
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.visit_path(&call.path);
        self.note_tokens(call.tokens.clone());
    }

    // The scope of a `pub(in ...)` is no use of it.
    fn visit_visibility(&mut self, _visibility: &'ast syn::Visibility) {}
}

fn layers() -> Layers {
    Layers::read(include_str!("../../../CONTRIBUTING.md"))
}

#[test]
fn imports_look_down_only() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let references = Reader::read_file(Vec::new(), &source.join("lib.rs"), source);
    assert!(
        references.len() > 500,
        "only {} paths were found",
        references.len()
    );
    let layers = layers();
    let path = |text: &str| -> Module { text.split("::").map(str::to_owned).collect() };
    let mut unused: BTreeSet<_> = KNOWN.iter().collect();
    let mut wrong = BTreeSet::new();
    for reference in &references {
        // The root of the crate names what the world may use.
        if reference.from.is_empty() {
            continue;
        }
        if let Err(why) = layers.check(reference) {
            let known = KNOWN.iter().find(|(from, to)| {
                reference.from.starts_with(&path(from)) && reference.to.starts_with(&path(to))
            });
            match known {
                Some(known) => _ = unused.remove(known),
                None => _ = wrong.insert(why),
            }
        }
    }
    let wrong: Vec<_> = wrong.into_iter().collect();
    assert!(
        wrong.is_empty(),
        "{} paths lead up:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(unused.is_empty(), "no longer needed in KNOWN: {unused:?}");
}

#[test]
fn every_layer_exists_and_is_described() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for module in layers().0.iter().flatten() {
        let place = source.join(module.join("/"));
        let exists = place.join("mod.rs").exists() || place.with_extension("rs").exists();
        assert!(exists, "{} is no module", module.join("::"));
    }
}

/// The layers of the tests below.
const SAMPLE: &str = "text\n```layers\ntop  the top\nleft right  beside each other\nmid::high  a part\n\
    mid  the rest\nlow  the bottom\n```\nmore";

/// What is wrong with a module `module` that contains `text`.
fn faults(module: &str, text: &str) -> Vec<String> {
    let layers = Layers::read(SAMPLE);
    let module = module.split("::").map(str::to_owned).collect();
    let found = Reader::read(module, text, None);
    found
        .iter()
        .filter_map(|reference| layers.check(reference).err())
        .collect()
}

#[test]
fn all_ways_to_write_a_path_up_are_seen() {
    for text in [
        "use crate::top;",
        "use crate::top as other;",
        "pub use crate::top::*;",
        "use crate::{low::{a, b}, top::c};",
        "use crate::{low, top::{self}};",
        "use super::top::c;",
        "use super::{low::a, top::c};",
        "use self::super::top::c;",
        "fn f() { use crate::top::c; }",
        "fn f() { crate::top::c(); }",
        "fn f(c: &super::top::C) {}",
        "fn f() { log::info!(\"{}\", crate::top::c()); }",
        "macro_rules! m { () => { $crate::top::c() } }",
        "#[cfg(not(test))] use crate::top::c;",
        "#[cfg(any(test, loom))] use crate::top::c;",
        "mod inner { use super::super::top::c; }",
        "struct S(Box<dyn crate::top::T>);",
    ] {
        assert_eq!(faults("mid", text).len(), 1, "{text}");
    }
    assert_eq!(
        faults("mid::x", "fn f() {}\nuse super::super::top::c;"),
        ["mid::x (line 2) uses top::c, which is above it"]
    );
}

#[test]
fn paths_that_lead_down_or_out_are_none_up() {
    for text in [
        "use crate::low::a;",
        "use crate::mid::b;",
        "use super::low::{self, a};",
        "use other::top::c;",
        "use ::top::c;",
        "pub(crate) fn f() {}",
        "pub(in crate::top) fn f() {}",
        "#[cfg(test)] mod tests { use crate::top::c; }",
        "#[cfg(test)] mod tests;",
        "#[cfg(all(test, not(loom)))] fn f() { crate::top::c() }",
        "impl S { #[cfg(test)] fn f() { crate::top::c() } }",
        "// crate::top::c\nconst S: &str = \"crate::top::c\";",
    ] {
        assert_eq!(faults("mid", text), [""; 0], "{text}");
    }
}

#[test]
fn modules_of_a_layer_and_parts_of_a_module_are_told_apart() {
    assert_eq!(faults("left", "use crate::right::a;").len(), 1, "beside");
    assert_eq!(faults("left", "use crate::left::a;").len(), 0, "itself");
    assert_eq!(
        faults("mid::other", "use super::high::a;").len(),
        1,
        "a part that is above"
    );
    assert_eq!(
        faults("mid", "mod high; use high::a;").len(),
        1,
        "and is a child"
    );
    assert_eq!(faults("mid::high", "use super::other::a;").len(), 0);
    assert_eq!(
        faults("mid", "use crate::unlisted::a;").len(),
        1,
        "in no layer"
    );
    assert_eq!(
        faults("mid", "use crate::*;").len(),
        1,
        "the root of the crate"
    );
}
