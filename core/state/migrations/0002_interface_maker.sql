-- 1 when the hypervisor makes the interface, so that a policy can be put back
-- without asking it.
ALTER TABLE addresses ADD COLUMN creates_interface INTEGER NOT NULL DEFAULT 0;
