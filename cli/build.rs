//! Lists the files of `../dashboard`, so that the program holds every one of them and none can be forgotten.

// Cargo reads what a build script prints.
#![allow(clippy::print_stdout)]

use std::fmt::Write;
use std::path::Path;
use std::{env, fs, io};

fn main() -> io::Result<()> {
    // Asked at run time: clones that share a target directory share this script too.
    let package = env::var_os("CARGO_MANIFEST_DIR").ok_or_else(|| io::Error::other("CARGO_MANIFEST_DIR is not set"))?;
    let folder = Path::new(&package).join("../dashboard");
    println!("cargo::rerun-if-changed={}", folder.display());
    let mut files: Vec<_> = fs::read_dir(&folder)?.collect::<Result<_, _>>()?;
    files.sort_by_key(|file| file.file_name());

    let mut code = String::from("&[\n");
    for file in files {
        let name = file.file_name().to_string_lossy().into_owned();
        let served = [".html", ".css", ".js", ".svg"].iter().any(|ending| name.ends_with(ending));
        if served && file.file_type()?.is_file() {
            let path = file.path().canonicalize()?;
            println!("cargo::rerun-if-changed={}", path.display());
            writeln!(code, "    ({name:?}, include_bytes!({:?})),", path.display().to_string())
                .map_err(io::Error::other)?;
        }
    }
    code.push_str("]\n");
    let out = env::var_os("OUT_DIR").ok_or_else(|| io::Error::other("OUT_DIR is not set"))?;
    fs::write(Path::new(&out).join("assets.rs"), code)
}
