import java.io.*;
import java.nio.charset.StandardCharsets;
import java.nio.file.*;
import java.security.*;
import java.security.cert.*;
import java.util.*;
import javax.net.ssl.*;

/**
 * Signs with the device's key by SunPKCS11, and makes TLS connections with it.
 *
 * sign MESSAGE SIGNATURE ALGORITHM | connect PORT PROTOCOL COUNT | serve PROTOCOL
 *
 * The environment is that of tests/clients/lib.sh; JAVA_CONFIG is the configuration of the provider.
 */
public final class Client {
    private static final String LABEL = System.getenv("KEY_LABEL");

    public static void main(String[] arguments) throws Exception {
        Provider provider = Security.getProvider("SunPKCS11").configure(System.getenv("JAVA_CONFIG"));
        Security.addProvider(provider);
        KeyStore store = KeyStore.getInstance("PKCS11", provider);
        String pin = System.getenv("PIN");
        store.load(null, pin.isEmpty() ? null : pin.toCharArray());
        PrivateKey key = (PrivateKey) store.getKey(LABEL, null);
        if (key == null) {
            throw new KeyStoreException(LABEL + " is not among " + Collections.list(store.aliases()));
        }
        switch (arguments[0]) {
            case "sign" -> sign(key, provider, arguments);
            case "connect" -> connect(store, arguments);
            case "serve" -> serve(store, arguments);
            default -> throw new IllegalArgumentException(arguments[0]);
        }
    }

    private static void sign(PrivateKey key, Provider provider, String[] arguments) throws Exception {
        Signature signature = Signature.getInstance(arguments[3], provider);
        if (arguments[3].equals("RSASSA-PSS")) {
            signature.setParameter(new java.security.spec.PSSParameterSpec(
                    "SHA-256", "MGF1", java.security.spec.MGF1ParameterSpec.SHA256, 32, 1));
        }
        signature.initSign(key);
        signature.update(Files.readAllBytes(Path.of(arguments[1])));
        Files.write(Path.of(arguments[2]), signature.sign());
    }

    private static SSLContext context(KeyStore store) throws Exception {
        KeyManagerFactory keys = KeyManagerFactory.getInstance("NewSunX509");
        keys.init(new KeyStoreBuilderParameters(KeyStore.Builder.newInstance(store, new KeyStore.PasswordProtection(null))));
        KeyStore trusted = KeyStore.getInstance(KeyStore.getDefaultType());
        trusted.load(null, null);
        try (InputStream file = Files.newInputStream(Path.of(System.getenv("PEER_CA")))) {
            trusted.setCertificateEntry("peer", CertificateFactory.getInstance("X.509").generateCertificate(file));
        }
        TrustManagerFactory trust = TrustManagerFactory.getInstance("PKIX");
        trust.init(trusted);
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(keys.getKeyManagers(), trust.getTrustManagers(), null);
        return context;
    }

    private static void connect(KeyStore store, String[] arguments) throws Exception {
        int count = Integer.parseInt(arguments[3]);
        SSLSocketFactory factory = context(store).getSocketFactory();
        for (int number = 1; number <= count; number++) {
            try (SSLSocket socket = (SSLSocket) factory.createSocket("127.0.0.1", Integer.parseInt(arguments[1]))) {
                socket.setEnabledProtocols(new String[] {arguments[2]});
                socket.getOutputStream().write("GET / HTTP/1.0\r\n\r\n".getBytes(StandardCharsets.US_ASCII));
                String answer = new String(socket.getInputStream().readAllBytes(), StandardCharsets.ISO_8859_1);
                if (!answer.contains("Client certificate")) {
                    throw new IOException("handshake " + number + ": the server saw no certificate");
                }
            }
        }
        System.out.println(count + " handshakes by " + arguments[2]);
    }

    private static void serve(KeyStore store, String[] arguments) throws Exception {
        SSLServerSocketFactory factory = context(store).getServerSocketFactory();
        try (SSLServerSocket listener = (SSLServerSocket) factory.createServerSocket(0)) {
            listener.setEnabledProtocols(new String[] {arguments[1]});
            listener.setNeedClientAuth(true);
            System.out.println("port " + listener.getLocalPort());
            while (true) {
                try (SSLSocket socket = (SSLSocket) listener.accept()) {
                    socket.getOutputStream().write("welcome\n".getBytes(StandardCharsets.US_ASCII));
                } catch (IOException error) {
                    System.out.println(error);
                }
            }
        }
    }
}
