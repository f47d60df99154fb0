//! The front-end's requests, one by one (QEMU's docs/interop/vhost-user.rst).

use std::fs::File;
use std::os::fd::{FromRawFd, IntoRawFd};

use vhost::vhost_user::message::{
    VhostTransferStateDirection, VhostTransferStatePhase, VhostUserConfigFlags, VhostUserInflight,
    VhostUserLog, VhostUserMemoryRegion, VhostUserProtocolFeatures, VhostUserShMemConfig,
    VhostUserSharedMsg, VhostUserSingleMemoryRegion, VhostUserVirtioFeatures,
    VhostUserVringAddrFlags, VhostUserVringState,
};
use vhost::vhost_user::{Error, GpuBackend, Result, VhostUserBackendReqHandlerMut};
use vm_memory::{FileOffset, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::eventfd::EventFd;

use super::{Region, VhostUser};
use crate::{Memory, VirtioDevice};

/// Of the features here, the one that is not the driver's but the front-end's.
const PROTOCOL_FEATURES: u64 = VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();

/// The answer to what belongs to protocol features that are not offered.
fn unsupported<T>() -> Result<T> {
    Err(Error::InvalidOperation("not offered"))
}

/// The event behind a descriptor that the front-end sent.
fn event(file: Option<File>) -> Result<EventFd> {
    let file = file.ok_or(Error::IncorrectFds)?;
    // SAFETY: the descriptor is the file's alone, and passes from one owner to the other.
    Ok(unsafe { EventFd::from_raw_fd(file.into_raw_fd()) })
}

impl<D: VirtioDevice> VhostUserBackendReqHandlerMut for VhostUser<D> {
    fn set_owner(&mut self) -> Result<()> {
        Ok(())
    }

    fn reset_owner(&mut self) -> Result<()> {
        self.stop();
        Ok(())
    }

    fn get_features(&mut self) -> Result<u64> {
        Ok(self.offered() | PROTOCOL_FEATURES)
    }

    fn set_features(&mut self, features: u64) -> Result<()> {
        let features = features & !PROTOCOL_FEATURES;
        if features & !self.offered() != 0 {
            return Err(Error::FeatureMismatch);
        }
        self.features = features;
        Ok(())
    }

    fn get_protocol_features(&mut self) -> Result<VhostUserProtocolFeatures> {
        Ok(VhostUserProtocolFeatures::CONFIG | VhostUserProtocolFeatures::MQ)
    }

    fn set_protocol_features(&mut self, _features: u64) -> Result<()> {
        Ok(())
    }

    fn get_queue_num(&mut self) -> Result<u64> {
        Ok(self.rings.len() as u64)
    }

    fn get_config(
        &mut self,
        offset: u32,
        size: u32,
        _flags: VhostUserConfigFlags,
    ) -> Result<Vec<u8>> {
        let mut bytes = vec![0; size as usize];
        self.device.read_config(offset.into(), &mut bytes);
        Ok(bytes)
    }

    fn set_config(
        &mut self,
        offset: u32,
        bytes: &[u8],
        _flags: VhostUserConfigFlags,
    ) -> Result<()> {
        self.device.write_config(offset.into(), bytes);
        Ok(())
    }

    fn set_mem_table(
        &mut self,
        regions: &[VhostUserMemoryRegion],
        files: Vec<File>,
        _postcopy_listening: Option<bool>,
    ) -> Result<Option<Vec<u64>>> {
        if self.is_active {
            return Err(Error::InvalidOperation("memory is in use"));
        }
        let mut ranges: Vec<_> = regions
            .iter()
            .zip(files)
            .map(|(region, file)| {
                (
                    GuestAddress(region.guest_phys_addr),
                    region.memory_size as usize,
                    Some(FileOffset::new(file, region.mmap_offset)),
                )
            })
            .collect();
        ranges.sort_by_key(|(address, ..)| *address);
        let memory = GuestMemoryMmap::from_ranges_with_files(ranges)
            .map_err(|error| Error::ReqHandlerError(std::io::Error::other(error)))?;
        self.memory = Some(Memory::new(memory));
        self.regions = regions
            .iter()
            .map(|region| Region {
                guest: region.guest_phys_addr,
                frontend: region.user_addr,
                size: region.memory_size,
            })
            .collect();
        Ok(None)
    }

    fn set_vring_num(&mut self, index: u32, num: u32) -> Result<()> {
        let setup = &mut self.ring(index)?.setup;
        setup.size = u16::try_from(num)
            .ok()
            .filter(|size| size.is_power_of_two() && *size <= setup.max_size)
            .ok_or(Error::InvalidParam)?;
        Ok(())
    }

    fn set_vring_addr(
        &mut self,
        index: u32,
        _flags: VhostUserVringAddrFlags,
        descriptors: u64,
        used: u64,
        available: u64,
        _log: u64,
    ) -> Result<()> {
        let [descriptors, driver, device] = [descriptors, available, used]
            .map(|address| self.translate(address).ok_or(Error::InvalidParam));
        let setup = &mut self.ring(index)?.setup;
        (setup.descriptors, setup.driver, setup.device) = (descriptors?, driver?, device?);
        Ok(())
    }

    fn set_vring_base(&mut self, index: u32, base: u32) -> Result<()> {
        self.ring(index)?.setup.position = u16::try_from(base).map_err(|_| Error::InvalidParam)?;
        Ok(())
    }

    fn get_vring_base(&mut self, index: u32) -> Result<VhostUserVringState> {
        self.stop();
        let position = self.ring(index)?.setup.position;
        Ok(VhostUserVringState::new(index, position.into()))
    }

    fn set_vring_kick(&mut self, index: u8, file: Option<File>) -> Result<()> {
        let doorbell = event(file)?;
        self.ring(index)?.doorbell = Some(doorbell);
        Ok(())
    }

    /// All queues share the line: what it tells is to look at them.
    fn set_vring_call(&mut self, index: u8, file: Option<File>) -> Result<()> {
        self.ring(index)?;
        self.interrupt.replace_line(event(file)?);
        Ok(())
    }

    fn set_vring_err(&mut self, index: u8, _file: Option<File>) -> Result<()> {
        self.ring(index).map(drop)
    }

    fn set_vring_enable(&mut self, index: u32, enable: bool) -> Result<()> {
        if !enable {
            self.stop();
        }
        self.ring(index)?.setup.ready = enable;
        match enable {
            true => self.start(),
            false => Ok(()),
        }
    }

    fn reset_device(&mut self) -> Result<()> {
        unsupported()
    }

    fn set_gpu_socket(&mut self, _backend: GpuBackend) -> Result<()> {
        unsupported()
    }

    fn get_shared_object(&mut self, _uuid: VhostUserSharedMsg) -> Result<File> {
        unsupported()
    }

    fn get_inflight_fd(
        &mut self,
        _inflight: &VhostUserInflight,
    ) -> Result<(VhostUserInflight, File)> {
        unsupported()
    }

    fn set_inflight_fd(&mut self, _inflight: &VhostUserInflight, _file: File) -> Result<()> {
        unsupported()
    }

    fn get_max_mem_slots(&mut self) -> Result<u64> {
        unsupported()
    }

    fn add_mem_region(
        &mut self,
        _region: &VhostUserSingleMemoryRegion,
        _file: File,
        _postcopy_listening: Option<bool>,
    ) -> Result<Option<u64>> {
        unsupported()
    }

    fn remove_mem_region(&mut self, _region: &VhostUserSingleMemoryRegion) -> Result<()> {
        unsupported()
    }

    fn set_device_state_fd(
        &mut self,
        _direction: VhostTransferStateDirection,
        _phase: VhostTransferStatePhase,
        _file: File,
    ) -> Result<Option<File>> {
        unsupported()
    }

    fn check_device_state(&mut self) -> Result<()> {
        unsupported()
    }

    fn get_shmem_config(&mut self) -> Result<VhostUserShMemConfig> {
        unsupported()
    }

    fn set_log_base(&mut self, _log: &VhostUserLog, _file: File) -> Result<()> {
        unsupported()
    }
}
