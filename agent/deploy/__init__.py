"""Model versions on the device: plan, store, download, self-test, activate."""
