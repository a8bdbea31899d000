// SPDX-License-Identifier: MPL-2.0
//! What stands in for NVIDIA's libraries when a CUDA build is linked (`tools/cuda/lazy.sh`): a program
//! starts without them, is told so at the first call, and reaches them where they are.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use std::path::{Path, PathBuf};
use std::process::Command;

/// Calls of the real signatures, and one whose arguments fill all registers and some of the stack.
const PROGRAM: &str = r#"
    #include <stdio.h>
    int cuInit(unsigned);
    int cuGetErrorString(int, const char **);
    int cublasCreate_v2(void **);
    const char *cublasGetStatusString(int);
    unsigned long cublasGetCudartVersion(void);
    int curandCreateGenerator(void **, int);
    double cublasDgemm_v2(int, int, int, int, int, int, int, int, double, double, double, double,
                          double, double, double, double, double, int);
    int main(void) {
        const char *text = "";
        printf("%d ", cuInit(0));
        cuGetErrorString(100, &text);
        printf("%s; ", text);
        printf("%d ", cublasCreate_v2(0));
        printf("%s; ", cublasGetStatusString(1));
        printf("%lu %d", cublasGetCudartVersion(), curandCreateGenerator(0, 0));
        for (int i = 0; i < 2; i++)
            printf(" %.1f", cublasDgemm_v2(1, 2, 3, 4, 5, 6, 7, 8, .5, .25, .125, 1, 2, 3, 4, 5, 6, 9));
        return 0;
    }
"#;

/// A library that has some of the functions.
const LIBRARY: &str = r#"
    int cublasCreate_v2(void **handle) { return handle ? 3 : 7; }
    double cublasDgemm_v2(int a, int b, int c, int d, int e, int f, int g, int h, double i, double j,
                          double k, double l, double m, double n, double o, double p, double q, int r) {
        return a + 10 * b + 100 * c + 1000 * d + 10000 * e + 100000 * f + g + h + r
            + i + 2 * j + 4 * k + l + m + n + o + p + q;
    }
"#;

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let (text, fault) = (output.stdout, String::from_utf8_lossy(&output.stderr).into_owned());
    assert!(output.status.success(), "{command:?}: {fault}");
    String::from_utf8(text).unwrap()
}

fn compile(dir: &Path, name: &str, text: &str, options: &[&str]) -> PathBuf {
    let (source, made) = (dir.join(format!("{name}.c")), dir.join(name));
    std::fs::write(&source, text).unwrap();
    run(Command::new("cc").arg("-fno-builtin").arg("-o").arg(&made).arg(&source).args(options));
    made
}

#[test]
fn what_is_linked_with_the_stand_ins_needs_no_library_and_finds_those_there_are() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    run(Command::new(root.join("tools/cuda/lazy.sh")).arg(dir.join("lib")));
    let libraries = format!("-L{}", dir.join("lib").display());
    let options =
        [&libraries, "-lcuda", "-lcublas", "-lcublasLt", "-lcurand", "-lnvrtc", "-lcudart"];
    let program = compile(dir, "program", PROGRAM, &options);
    assert!(!run(Command::new("ldd").arg(&program)).contains("libcu"));

    // A status is all that a function returns which is not there; the program's double is no number then.
    let found = dir.join("found");
    std::fs::create_dir(&found).unwrap();
    let say = |folder: &Path| run(Command::new(&program).env("LD_LIBRARY_PATH", folder));
    let none = say(&dir.join("lib"));
    let expected = "100 no NVIDIA driver on this machine: libcuda.so.1 was not found; \
                    1 the library was not found; 0 203";
    assert!(none.starts_with(expected), "{none}");

    compile(&found, "libcublas.so.12", LIBRARY, &["-shared", "-fPIC"]);
    let some = say(&found);
    let driver = "100 no NVIDIA driver on this machine: libcuda.so.1 was not found; ";
    assert_eq!(some, format!("{driver}7 the library was not found; 0 203 654367.5 654367.5"));
}
