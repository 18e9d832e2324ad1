"""Who is who: the cluster's certificate authority, service account tokens, kubeconfigs."""
