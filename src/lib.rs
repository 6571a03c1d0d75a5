//! PKCS#11 module.
