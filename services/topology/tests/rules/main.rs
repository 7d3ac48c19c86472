//! The rules of the four topologies, one by one.

mod fold;
mod leader;
mod mesh;
mod ring;
mod star;
mod tree;
mod walk;
mod world;
