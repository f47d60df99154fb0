//! Builds Ringlet's initramfs: the same inputs give the same bytes.
//!
//! An [`Image`] is a tree of directories, files and symbolic links; [`layout`] fills it with what
//! a guest has; [`cpio`] writes it as an archive whose file data the kernel can use in place.
#![forbid(unsafe_code)]

pub mod cpio;
mod image;
pub mod layout;

pub use image::{Image, ImageError};
