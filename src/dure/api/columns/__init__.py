"""Which columns a built-in kind's Table has; names, order and wording are upstream's."""

from __future__ import annotations

from collections.abc import Mapping

from dure.api.columns import cluster, network, pods, workloads
from dure.api.columns.cells import DEFAULT
from dure.api.kind import Column

_COLUMNS: Mapping[str, tuple[Column, ...]] = {
    "APIService": cluster.API_SERVICES,
    "CSIDriver": cluster.CSI_DRIVERS,
    "CertificateSigningRequest": cluster.SIGNING_REQUESTS,
    "ClusterRole": cluster.NAME_AND_CREATION,
    "ClusterRoleBinding": cluster.BINDINGS,
    "ConfigMap": cluster.CONFIG_MAPS,
    "ControllerRevision": workloads.CONTROLLER_REVISIONS,
    "CronJob": workloads.CRON_JOBS,
    "CustomResourceDefinition": cluster.NAME_AND_CREATION,
    "DaemonSet": workloads.DAEMON_SETS,
    "Deployment": workloads.DEPLOYMENTS,
    "EndpointSlice": network.ENDPOINT_SLICES,
    "Endpoints": network.ENDPOINTS,
    "Event": cluster.EVENTS,
    "HorizontalPodAutoscaler": workloads.AUTOSCALERS,
    "Ingress": network.INGRESSES,
    "IngressClass": network.INGRESS_CLASSES,
    "Job": workloads.JOBS,
    "Lease": cluster.LEASES,
    "LimitRange": cluster.NAME_AND_CREATION,
    "MutatingWebhookConfiguration": cluster.WEBHOOKS,
    "Namespace": cluster.NAMESPACES,
    "NetworkPolicy": network.NETWORK_POLICIES,
    "Node": cluster.NODES,
    "PersistentVolume": cluster.VOLUMES,
    "PersistentVolumeClaim": cluster.CLAIMS,
    "Pod": pods.PODS,
    "PodDisruptionBudget": workloads.DISRUPTION_BUDGETS,
    "PodTemplate": pods.POD_TEMPLATES,
    "PriorityClass": cluster.PRIORITY_CLASSES,
    "ReplicaSet": workloads.REPLICA_SETS,
    "ReplicationController": workloads.REPLICATION_CONTROLLERS,
    "ResourceQuota": cluster.RESOURCE_QUOTAS,
    "Role": cluster.NAME_AND_CREATION,
    "RoleBinding": cluster.BINDINGS,
    "RuntimeClass": cluster.RUNTIME_CLASSES,
    "Secret": cluster.SECRETS,
    "Service": network.SERVICES,
    "ServiceAccount": cluster.SERVICE_ACCOUNTS,
    "StatefulSet": workloads.STATEFUL_SETS,
    "StorageClass": cluster.STORAGE_CLASSES,
    "ValidatingWebhookConfiguration": cluster.WEBHOOKS,
}


def columns_of(group: str, kind: str) -> tuple[Column, ...]:
    """Name and age for a kind without columns of its own. Built-in kinds' names are unique across groups."""
    return _COLUMNS.get(kind, DEFAULT)
