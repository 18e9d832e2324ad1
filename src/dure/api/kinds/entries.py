"""One line a kind: its strategy and the names the table of resources lacks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dure.api.kind import Conversion
from dure.api.kinds.admission import (
    MutatingWebhooksStrategy,
    PolicyBindingStrategy,
    PolicyStrategy,
    WebhooksStrategy,
)
from dure.api.kinds.apiextensions import CustomResourceDefinitionStrategy
from dure.api.kinds.apps import (
    ControllerRevisionStrategy,
    DaemonSetStrategy,
    DeploymentStrategy,
    PodTemplateStrategy,
    ReplicaSetStrategy,
    ReplicationControllerStrategy,
    StatefulSetStrategy,
)
from dure.api.kinds.batch import CronJobStrategy, JobStrategy
from dure.api.kinds.cluster import (
    LeaseStrategy,
    LimitRangeStrategy,
    NamespaceStrategy,
    NodeStrategy,
    ResourceQuotaStrategy,
)
from dure.api.kinds.config import ConfigMapStrategy, SecretStrategy
from dure.api.kinds.discovery import EndpointSliceStrategy, EndpointsStrategy
from dure.api.kinds.events import EVENT_VIEW, EventStrategy, NewEventStrategy
from dure.api.kinds.networking import IngressClassStrategy, IngressStrategy, NetworkPolicyStrategy
from dure.api.kinds.pods import PodStrategy
from dure.api.kinds.policy import (
    AUTOSCALER_VIEW,
    APIServiceStrategy,
    AutoscalerStrategy,
    OldAutoscalerStrategy,
    PodDisruptionBudgetStrategy,
    PriorityClassStrategy,
    RuntimeClassStrategy,
)
from dure.api.kinds.rbac import RoleBindingStrategy, RoleStrategy
from dure.api.kinds.reviews import (
    AccessReviewStrategy,
    BindingStrategy,
    LocalSubjectAccessReviewStrategy,
    ReviewStrategy,
    SubjectAccessReviewStrategy,
    TokenReviewStrategy,
)
from dure.api.kinds.services import ServiceStrategy
from dure.api.kinds.storage import (
    CSIDriverStrategy,
    PersistentVolumeClaimStrategy,
    PersistentVolumeStrategy,
    StorageClassStrategy,
)
from dure.api.kinds.strategy import StandardStrategy

_ALL = ("all",)
_EXTENSIONS = ("api-extensions",)
_ADMISSION = "admissionregistration.k8s.io"
_AUTHENTICATION = "authentication.k8s.io"
_AUTHORIZATION = "authorization.k8s.io"
_FLOW = "flowcontrol.apiserver.k8s.io"
_NETWORKING = "networking.k8s.io"
_RBAC = "rbac.authorization.k8s.io"
_RESOURCE = "resource.k8s.io"
_STORAGE = "storage.k8s.io"


@dataclass(frozen=True, slots=True)
class Entry:
    strategy: type[StandardStrategy] = StandardStrategy
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    generation: bool = False
    """For a StandardStrategy: whether upstream counts generations."""
    conversion: Conversion | None = None


PLAIN = Entry()

ENTRIES: Mapping[tuple[str, ...], Entry] = {
    # core
    ("", "bindings"): Entry(BindingStrategy),
    ("", "componentstatuses"): Entry(short_names=("cs",)),
    ("", "configmaps"): Entry(ConfigMapStrategy, ("cm",)),
    ("", "endpoints"): Entry(EndpointsStrategy, ("ep",)),
    ("", "events"): Entry(EventStrategy, ("ev",)),
    ("", "limitranges"): Entry(LimitRangeStrategy, ("limits",)),
    ("", "namespaces"): Entry(NamespaceStrategy, ("ns",)),
    ("", "nodes"): Entry(NodeStrategy, ("no",)),
    ("", "persistentvolumeclaims"): Entry(PersistentVolumeClaimStrategy, ("pvc",)),
    ("", "persistentvolumes"): Entry(PersistentVolumeStrategy, ("pv",)),
    ("", "pods"): Entry(PodStrategy, ("po",), _ALL),
    ("", "podtemplates"): Entry(PodTemplateStrategy),
    ("", "replicationcontrollers"): Entry(ReplicationControllerStrategy, ("rc",), _ALL),
    ("", "resourcequotas"): Entry(ResourceQuotaStrategy, ("quota",)),
    ("", "secrets"): Entry(SecretStrategy),
    ("", "serviceaccounts"): Entry(short_names=("sa",)),
    ("", "services"): Entry(ServiceStrategy, ("svc",), _ALL),
    # workloads
    ("apps", "controllerrevisions"): Entry(ControllerRevisionStrategy),
    ("apps", "daemonsets"): Entry(DaemonSetStrategy, ("ds",), _ALL),
    ("apps", "deployments"): Entry(DeploymentStrategy, ("deploy",), _ALL),
    ("apps", "replicasets"): Entry(ReplicaSetStrategy, ("rs",), _ALL),
    ("apps", "statefulsets"): Entry(StatefulSetStrategy, ("sts",), _ALL),
    ("batch", "cronjobs"): Entry(CronJobStrategy, ("cj",), _ALL),
    ("batch", "jobs"): Entry(JobStrategy, (), _ALL),
    ("autoscaling", "horizontalpodautoscalers"): Entry(AutoscalerStrategy, ("hpa",), _ALL),
    ("autoscaling", "horizontalpodautoscalers", "v1"): Entry(
        OldAutoscalerStrategy, ("hpa",), _ALL, conversion=AUTOSCALER_VIEW
    ),
    ("policy", "poddisruptionbudgets"): Entry(PodDisruptionBudgetStrategy, ("pdb",)),
    ("scheduling.k8s.io", "priorityclasses"): Entry(PriorityClassStrategy, ("pc",)),
    ("node.k8s.io", "runtimeclasses"): Entry(RuntimeClassStrategy),
    ("coordination.k8s.io", "leases"): Entry(LeaseStrategy),
    ("events.k8s.io", "events"): Entry(NewEventStrategy, ("ev",), conversion=EVENT_VIEW),
    # network
    ("discovery.k8s.io", "endpointslices"): Entry(EndpointSliceStrategy),
    (_NETWORKING, "ingresses"): Entry(IngressStrategy, ("ing",)),
    (_NETWORKING, "ingressclasses"): Entry(IngressClassStrategy),
    (_NETWORKING, "ipaddresses"): Entry(short_names=("ip",)),
    (_NETWORKING, "networkpolicies"): Entry(NetworkPolicyStrategy, ("netpol",)),
    # storage
    (_STORAGE, "csidrivers"): Entry(CSIDriverStrategy),
    (_STORAGE, "storageclasses"): Entry(StorageClassStrategy, ("sc",)),
    (_STORAGE, "volumeattributesclasses"): Entry(short_names=("vac",)),
    # rights
    (_RBAC, "clusterrolebindings"): Entry(RoleBindingStrategy),
    (_RBAC, "clusterroles"): Entry(RoleStrategy),
    (_RBAC, "rolebindings"): Entry(RoleBindingStrategy),
    (_RBAC, "roles"): Entry(RoleStrategy),
    (_AUTHENTICATION, "selfsubjectreviews"): Entry(ReviewStrategy),
    (_AUTHENTICATION, "tokenreviews"): Entry(TokenReviewStrategy),
    (_AUTHORIZATION, "localsubjectaccessreviews"): Entry(LocalSubjectAccessReviewStrategy),
    (_AUTHORIZATION, "selfsubjectaccessreviews"): Entry(AccessReviewStrategy),
    (_AUTHORIZATION, "selfsubjectrulesreviews"): Entry(ReviewStrategy),
    (_AUTHORIZATION, "subjectaccessreviews"): Entry(SubjectAccessReviewStrategy),
    ("certificates.k8s.io", "certificatesigningrequests"): Entry(short_names=("csr",)),
    # the API itself
    ("apiextensions.k8s.io", "customresourcedefinitions"): Entry(
        CustomResourceDefinitionStrategy, ("crd", "crds"), _EXTENSIONS
    ),
    ("apiregistration.k8s.io", "apiservices"): Entry(APIServiceStrategy, (), _EXTENSIONS),
    (_ADMISSION, "mutatingadmissionpolicies"): Entry(PolicyStrategy, (), _EXTENSIONS),
    (_ADMISSION, "mutatingadmissionpolicybindings"): Entry(PolicyBindingStrategy, (), _EXTENSIONS),
    (_ADMISSION, "mutatingwebhookconfigurations"): Entry(MutatingWebhooksStrategy, (), _EXTENSIONS),
    (_ADMISSION, "validatingadmissionpolicies"): Entry(PolicyStrategy, (), _EXTENSIONS),
    (_ADMISSION, "validatingadmissionpolicybindings"): Entry(PolicyBindingStrategy, (), _EXTENSIONS),
    (_ADMISSION, "validatingwebhookconfigurations"): Entry(WebhooksStrategy, (), _EXTENSIONS),
    (_FLOW, "flowschemas"): Entry(generation=True),
    (_FLOW, "prioritylevelconfigurations"): Entry(generation=True),
    (_RESOURCE, "resourceslices"): Entry(generation=True),
    (_RESOURCE, "deviceclasses"): Entry(generation=True),
}
