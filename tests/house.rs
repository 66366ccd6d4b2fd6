//! The rules of the house, checked: who imports whom, who makes threads, who
//! prints, and that no async runtime moves in.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs") {
            found.push(path);
        }
    }
}

/// Source files with their module, the first name below `src/`.
fn modules() -> Vec<(String, PathBuf, String)> {
    let src = root().join("src");
    let mut found = Vec::new();
    sources(&src, &mut found);
    found
        .into_iter()
        .map(|path| {
            let below = path.strip_prefix(&src).unwrap().with_extension("");
            let first = below.components().next().unwrap().as_os_str();
            let module = first.to_str().unwrap().to_owned();
            let text = fs::read_to_string(&path).unwrap();
            (module, path, text)
        })
        .collect()
}

/// The table under "Who may import whom" in ARCHITECTURE.md: `| module | imports |`.
fn allowed() -> BTreeMap<String, BTreeSet<String>> {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let section = text.split("## Who may import whom").nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    section
        .lines()
        .filter_map(|line| {
            let mut cells = line.split('|').map(str::trim).skip(1);
            let (module, imports) = (cells.next()?, cells.next()?);
            let module = module.strip_prefix('`')?.strip_suffix('`')?;
            let imports = imports
                .split(',')
                .map(|name| name.trim().trim_matches('`').to_owned())
                .filter(|name| !name.is_empty() && name != "nothing")
                .collect();
            Some((module.to_owned(), imports))
        })
        .collect()
}

/// The modules a text names as `crate::NAME`.
fn imports(text: &str) -> BTreeSet<String> {
    text.match_indices("crate::")
        .map(|(at, found)| {
            text[at + found.len()..]
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect()
        })
        .collect()
}

#[test]
fn modules_import_only_what_the_table_allows() {
    let allowed = allowed();
    let mut wrong = Vec::new();
    for (module, path, text) in modules() {
        if ["lib", "main"].contains(&module.as_str()) {
            continue;
        }
        let Some(allowed) = allowed.get(&module) else {
            wrong.push(format!("{module} is missing from the table"));
            continue;
        };
        for import in imports(&text) {
            if import != module && !allowed.contains(&import) {
                wrong.push(format!("{}: crate::{import}", path.display()));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "not in ARCHITECTURE.md's table:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn the_table_allows_nothing_that_is_not_used() {
    let mut used: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (module, _, text) in modules() {
        used.entry(module).or_default().extend(imports(&text));
    }
    for (module, imports) in allowed() {
        let used = used
            .get(&module)
            .unwrap_or_else(|| panic!("there is no {module}"));
        let idle: Vec<_> = imports.difference(used).collect();
        assert!(idle.is_empty(), "{module} does not import {idle:?}");
    }
}

/// Files that hold one of the words, test code left out.
fn files_with(words: &[&str]) -> Vec<String> {
    modules()
        .into_iter()
        .filter(|(_, _, text)| {
            let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or(text);
            words.iter().any(|word| code.contains(word))
        })
        .map(|(_, path, _)| {
            let below = path.strip_prefix(root().join("src")).unwrap();
            below.display().to_string()
        })
        .collect()
}

#[test]
fn threads_are_made_in_one_place_and_its_twin() {
    let mut makers = files_with(&["thread::Builder", "std::thread::spawn", "thread::scope"]);
    makers.sort();
    assert_eq!(makers, ["kafka/connection.rs", "thread.rs"]);
}

#[test]
fn only_the_command_line_prints_and_only_main_exits() {
    assert_eq!(
        files_with(&["println!", "eprint", "print!("]),
        Vec::<String>::new()
    );
    assert_eq!(
        files_with(&["process::exit", "process::abort"]),
        Vec::<String>::new()
    );
}

#[test]
fn no_async_runtime_lives_here() {
    let lock = fs::read_to_string(root().join("Cargo.lock")).unwrap();
    for runtime in ["tokio", "async-std", "smol", "mio", "futures-executor"] {
        let entry = format!("name = \"{runtime}\"");
        assert!(!lock.contains(&entry), "{runtime} is in Cargo.lock");
    }
}
