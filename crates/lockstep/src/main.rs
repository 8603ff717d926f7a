//! The program: everything is in the library, where the fuzz targets reach it too.

fn main() -> std::process::ExitCode {
    lockstep::main()
}
