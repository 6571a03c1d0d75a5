// What a Java program does with a token: Device CONFIGURATION digests FILE FOLDER | signs ALIAS FILE
// FOLDER | asks HOST PORT TRUSTED ALIAS... | serves ALIAS... With -Dfirst=true the token's provider
// stands before Java's own.

import java.io.FileInputStream;
import java.net.Socket;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyStore;
import java.security.MessageDigest;
import java.security.Principal;
import java.security.PrivateKey;
import java.security.Provider;
import java.security.Security;
import java.security.Signature;
import java.security.cert.Certificate;
import java.security.cert.CertificateFactory;
import java.security.cert.X509Certificate;
import java.security.spec.MGF1ParameterSpec;
import java.security.spec.PSSParameterSpec;
import java.util.Arrays;
import javax.net.ssl.KeyManager;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLEngine;
import javax.net.ssl.SSLServerSocket;
import javax.net.ssl.SSLSocket;
import javax.net.ssl.TrustManager;
import javax.net.ssl.TrustManagerFactory;
import javax.net.ssl.X509ExtendedKeyManager;

class Device {
    static Provider provider;
    static KeyStore store;

    public static void main(String[] args) throws Exception {
        provider = Security.getProvider("SunPKCS11").configure(args[0]);
        if (Boolean.getBoolean("first")) {
            Security.insertProviderAt(provider, 1);
        } else {
            Security.addProvider(provider);
        }
        store = KeyStore.getInstance("PKCS11", provider);
        store.load(null, null);
        switch (args[1]) {
            case "digests" -> digests(Files.readAllBytes(Path.of(args[2])), Path.of(args[3]));
            case "signs" -> signs(args[2], Files.readAllBytes(Path.of(args[3])), Path.of(args[4]));
            case "asks" -> asks(args);
            case "serves" -> serves(Arrays.copyOfRange(args, 2, args.length));
            default -> throw new IllegalArgumentException(args[1]);
        }
    }

    // Writes FOLDER/SHA-256 and so on, each hashed by the token.
    static void digests(byte[] data, Path folder) throws Exception {
        for (String name : new String[] {"SHA-1", "SHA-224", "SHA-256", "SHA-384", "SHA-512"}) {
            MessageDigest digest = MessageDigest.getInstance(name, provider);
            byte[] whole = digest.digest(data);
            for (int at = 0; at < data.length; at += 777) {
                digest.update(data, at, Math.min(777, data.length - at));
            }
            if (!Arrays.equals(whole, digest.digest())) {
                throw new AssertionError(name + ": not the same in parts");
            }
            // An operation that is given up disturbs none after it.
            digest.update(data);
            digest.reset();
            if (!Arrays.equals(whole, digest.digest(data))) {
                throw new AssertionError(name + ": not the same after reset");
            }
            Files.write(folder.resolve(name), whole);
        }
    }

    // Writes FOLDER/PSS-256 and so on.
    static void signs(String alias, byte[] data, Path folder) throws Exception {
        PrivateKey key = (PrivateKey) store.getKey(alias, null);
        for (int bits : new int[] {256, 384, 512}) {
            String hash = "SHA-" + bits;
            Signature signature = Signature.getInstance("RSASSA-PSS");
            signature.initSign(key);
            MGF1ParameterSpec mask = new MGF1ParameterSpec(hash);
            signature.setParameter(new PSSParameterSpec(hash, "MGF1", mask, bits / 8, 1));
            signature.update(data);
            Files.write(folder.resolve("PSS-" + bits), signature.sign());
            if (signature.getProvider() != provider) {
                throw new AssertionError("signed by " + signature.getProvider());
            }
            signature = Signature.getInstance("SHA" + bits + "withRSA");
            signature.initSign(key);
            signature.update(data);
            Files.write(folder.resolve("PKCS1-" + bits), signature.sign());
        }
    }

    static final String[] PROTOCOLS = {"TLSv1.2", "TLSv1.3"};

    // One request of each alias over each protocol; prints the server's answers.
    static void asks(String[] args) throws Exception {
        TrustManager[] trusts = trusts(args[4]);
        for (String alias : Arrays.copyOfRange(args, 5, args.length)) {
            for (String protocol : PROTOCOLS) {
                SSLContext context = context(alias, trusts);
                int port = Integer.parseInt(args[3]);
                try (SSLSocket socket =
                        (SSLSocket) context.getSocketFactory().createSocket(args[2], port)) {
                    socket.setEnabledProtocols(new String[] {protocol});
                    socket.getOutputStream().write("GET / HTTP/1.0\r\n\r\n".getBytes());
                    String page = new String(socket.getInputStream().readAllBytes());
                    System.out.println("=== " + alias + " " + protocol + "\n" + page);
                }
            }
        }
    }

    // Serves each alias at a port of its own, which is printed.
    static void serves(String[] aliases) throws Exception {
        for (String alias : aliases) {
            SSLServerSocket listener =
                    (SSLServerSocket)
                            context(alias, null).getServerSocketFactory().createServerSocket(0);
            listener.setEnabledProtocols(PROTOCOLS);
            new Thread(() -> serve(listener, alias)).start();
            System.out.println(alias + " " + listener.getLocalPort());
        }
    }

    static void serve(SSLServerSocket listener, String alias) {
        while (true) {
            try (SSLSocket socket = (SSLSocket) listener.accept()) {
                socket.getInputStream().read(new byte[1000]);
                String protocol = socket.getSession().getProtocol();
                String page = "HTTP/1.0 200 OK\r\n\r\n" + alias + " by " + protocol + "\n";
                socket.getOutputStream().write(page.getBytes());
            } catch (Exception why) {
                System.err.println(alias + ": " + why);
            }
        }
    }

    static TrustManager[] trusts(String file) throws Exception {
        KeyStore trusted = KeyStore.getInstance(KeyStore.getDefaultType());
        trusted.load(null, null);
        CertificateFactory factory = CertificateFactory.getInstance("X.509");
        try (FileInputStream in = new FileInputStream(file)) {
            for (Certificate one : factory.generateCertificates(in)) {
                trusted.setCertificateEntry("trusted " + trusted.size(), one);
            }
        }
        TrustManagerFactory managers =
                TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        managers.init(trusted);
        return managers.getTrustManagers();
    }

    static SSLContext context(String alias, TrustManager[] trusts) throws Exception {
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(new KeyManager[] {new One(alias)}, trusts, null);
        return context;
    }

    // The key of this alias, whatever else there is.
    static class One extends X509ExtendedKeyManager {
        final String alias;
        final PrivateKey key;
        final X509Certificate[] chain;

        One(String alias) throws Exception {
            this.alias = alias;
            key = (PrivateKey) store.getKey(alias, null);
            Certificate[] found = store.getCertificateChain(alias);
            chain = Arrays.copyOf(found, found.length, X509Certificate[].class);
        }

        private String ifFits(String... types) {
            String own = key.getAlgorithm();
            return Arrays.stream(types).anyMatch(type -> type.startsWith(own)) ? alias : null;
        }

        public String chooseClientAlias(String[] types, Principal[] issuers, Socket socket) {
            return ifFits(types);
        }

        public String chooseEngineClientAlias(String[] types, Principal[] issuers, SSLEngine one) {
            return ifFits(types);
        }

        public String chooseServerAlias(String type, Principal[] issuers, Socket socket) {
            return ifFits(type);
        }

        public String chooseEngineServerAlias(String type, Principal[] issuers, SSLEngine one) {
            return ifFits(type);
        }

        public String[] getClientAliases(String type, Principal[] issuers) {
            return new String[] {alias};
        }

        public String[] getServerAliases(String type, Principal[] issuers) {
            return new String[] {alias};
        }

        public X509Certificate[] getCertificateChain(String wanted) {
            return chain;
        }

        public PrivateKey getPrivateKey(String wanted) {
            return key;
        }
    }
}
