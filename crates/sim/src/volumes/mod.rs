//! Two or three real volumes over simulated disks, databases, clocks and connections, driven by
//! one seed: the same seed gives the same run. What is simulated is the operating system below
//! (`disk.rs` says what a crash may do) and the pump above; everything between is the product.

mod below;
mod calls;
mod causes;
mod clock;
mod disk;
mod fetch;
mod file;
mod host;
mod image;
mod ledger;
mod plan;
mod power;
mod session;
mod settle;
mod store;
mod tree;
mod world;

pub use plan::VolumePlan;
pub use world::run;
