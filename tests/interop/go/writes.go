package main

import (
	"fmt"
	"sync"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	applyapps "k8s.io/client-go/applyconfigurations/apps/v1"
	applyscaling "k8s.io/client-go/applyconfigurations/autoscaling/v1"
	applycore "k8s.io/client-go/applyconfigurations/core/v1"
	applymeta "k8s.io/client-go/applyconfigurations/meta/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/scale"
	"k8s.io/client-go/util/retry"
)

// Patches of all types, server-side apply, scale, and many writers of one object.
var writes = []check{
	{"patch-json", patchJSON},
	{"patch-merge", patchMerge},
	{"patch-strategic", patchStrategic},
	{"patch-status", patchStatus},
	{"apply", apply},
	{"apply-conflict", applyConflict},
	{"apply-extracted", applyExtracted},
	{"apply-many-kinds", applyManyKinds},
	{"retry-on-conflict", retryOnConflict},
	{"scale", scaleTyped},
	{"scale-ownership", scaleOwnership},
	{"scale-polymorphic", scalePolymorphic},
	{"rollout", rollout},
}

func deployment(name string, replicas int32) *appsv1.Deployment {
	labels := map[string]string{"app": name}
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas,
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: podSpec()},
		},
	}
}

func patchJSON(t *setting) error {
	maps := t.client.CoreV1().ConfigMaps(t.namespace)
	if _, err := maps.Create(t, configMap("c", map[string]string{"a.b": "1", "c": "2"}), metav1.CreateOptions{}); err != nil {
		return err
	}
	patch := []byte(`[{"op":"test","path":"/data/a.b","value":"1"},{"op":"replace","path":"/data/a.b","value":"3"},
		{"op":"move","from":"/data/c","path":"/data/d"},{"op":"add","path":"/data/e","value":"5"},
		{"op":"add","path":"/metadata/annotations","value":{}},{"op":"add","path":"/metadata/annotations/a~1b","value":"6"}]`)
	got, err := maps.Patch(t, "c", types.JSONPatchType, patch, metav1.PatchOptions{FieldManager: "tester"})
	return first(err, equal("data", got.Data, map[string]string{"a.b": "3", "d": "2", "e": "5"}),
		equal("annotations", got.Annotations, map[string]string{"a/b": "6"}))
}

func patchMerge(t *setting) error {
	maps := t.client.CoreV1().ConfigMaps(t.namespace)
	made, err := maps.Create(t, configMap("c", map[string]string{"a": "1", "b": "2"}), metav1.CreateOptions{})
	if err != nil {
		return err
	}
	got, err := maps.Patch(t, "c", types.MergePatchType, []byte(`{"data":{"a":null,"c":"3"}}`), metav1.PatchOptions{})
	if err := first(err, equal("data", got.Data, map[string]string{"b": "2", "c": "3"})); err != nil {
		return err
	}
	stale := fmt.Appendf(nil, `{"metadata":{"resourceVersion":%q},"data":{"d":"4"}}`, made.ResourceVersion)
	_, err = maps.Patch(t, "c", types.MergePatchType, stale, metav1.PatchOptions{})
	return refused("a stale patch", err, apierrors.IsConflict)
}

func patchStrategic(t *setting) error {
	apps := t.client.AppsV1().Deployments(t.namespace)
	if _, err := apps.Create(t, deployment("web", 0), metav1.CreateOptions{}); err != nil {
		return err
	}
	patch := []byte(`{"spec":{"template":{"spec":{"containers":[
		{"name":"side","image":"example/side:1"},{"name":"main","env":[{"name":"A","value":"1"}]}]}}}}`)
	if _, err := apps.Patch(t, "web", types.StrategicMergePatchType, patch, metav1.PatchOptions{}); err != nil {
		return err
	}
	patch = []byte(`{"spec":{"template":{"spec":{"$setElementOrder/containers":[{"name":"main"}],"containers":[
		{"$patch":"delete","name":"side"},{"name":"main","env":[{"name":"B","value":"2"}]}]}}}}`)
	got, err := apps.Patch(t, "web", types.StrategicMergePatchType, patch, metav1.PatchOptions{})
	if err != nil {
		return err
	}
	containers := got.Spec.Template.Spec.Containers
	return first(
		equal("containers", len(containers), 1),
		equal("image", containers[0].Image, "example/main:1"),
		equal("env", containers[0].Env, []corev1.EnvVar{{Name: "B", Value: "2"}, {Name: "A", Value: "1"}}),
	)
}

func patchStatus(t *setting) error {
	patch := []byte(`{"metadata":{"annotations":{"seen":"1"}},"status":{"conditions":[
		{"type":"Interop","status":"True","reason":"Checked","message":"said"}]}}`)
	nodes := t.client.CoreV1().Nodes()
	got, err := nodes.PatchStatus(t, "sim-1", patch)
	if err != nil {
		return err
	}
	kinds := map[corev1.NodeConditionType]corev1.ConditionStatus{}
	for _, condition := range got.Status.Conditions {
		kinds[condition.Type] = condition.Status
	}
	return first(
		equal("the new condition", kinds["Interop"], corev1.ConditionTrue),
		equal("the old condition", kinds[corev1.NodeReady], corev1.ConditionTrue),
	)
}

func applied(name string, t *setting) *applyapps.DeploymentApplyConfiguration {
	labels := map[string]string{"app": name}
	container := applycore.Container().WithName("main").WithImage("example/main:1").
		WithPorts(applycore.ContainerPort().WithContainerPort(80).WithProtocol(corev1.ProtocolTCP))
	template := applycore.PodTemplateSpec().WithLabels(labels).WithSpec(applycore.PodSpec().WithContainers(container))
	spec := applyapps.DeploymentSpec().WithReplicas(1).
		WithSelector(applymeta.LabelSelector().WithMatchLabels(labels)).WithTemplate(template)
	return applyapps.Deployment(name, t.namespace).WithSpec(spec)
}

func apply(t *setting) error {
	apps := t.client.AppsV1().Deployments(t.namespace)
	made, err := apps.Apply(t, applied("web", t).WithLabels(map[string]string{"a": "1"}), metav1.ApplyOptions{FieldManager: "one"})
	if err := first(err, equal("labels", made.Labels, map[string]string{"a": "1"})); err != nil {
		return err
	}
	again, err := apps.Apply(t, applied("web", t), metav1.ApplyOptions{FieldManager: "one"})
	return first(
		err,
		equal("labels after they were left out", len(again.Labels), 0),
		equal("manager", again.ManagedFields[0].Manager, "one"),
		equal("operation", again.ManagedFields[0].Operation, metav1.ManagedFieldsOperationApply),
	)
}

func applyConflict(t *setting) error {
	apps := t.client.AppsV1().Deployments(t.namespace)
	if _, err := apps.Apply(t, applied("web", t), metav1.ApplyOptions{FieldManager: "one"}); err != nil {
		return err
	}
	other := applyapps.Deployment("web", t.namespace).WithSpec(applyapps.DeploymentSpec().WithReplicas(3))
	_, err := apps.Apply(t, other, metav1.ApplyOptions{FieldManager: "two"})
	if err := refused("another's field", err, apierrors.IsConflict); err != nil {
		return err
	}
	cause, found := apierrors.StatusCause(err, metav1.CauseTypeFieldManagerConflict)
	if err := first(holds("the cause is told", found), equal("the field", cause.Field, ".spec.replicas")); err != nil {
		return err
	}
	got, err := apps.Apply(t, other, metav1.ApplyOptions{FieldManager: "two", Force: true})
	return first(err, equal("replicas", *got.Spec.Replicas, int32(3)))
}

func applyExtracted(t *setting) error {
	apps := t.client.AppsV1().Deployments(t.namespace)
	made, err := apps.Apply(t, applied("web", t), metav1.ApplyOptions{FieldManager: "one"})
	if err != nil {
		return err
	}
	mine, err := applyapps.ExtractDeployment(made, "one")
	if err := first(err, equal("what is mine", mine, applied("web", t))); err != nil {
		return err
	}
	status := applyapps.Deployment("web", t.namespace).
		WithStatus(applyapps.DeploymentStatus().WithConditions(applyapps.DeploymentCondition().
			WithType("Interop").WithStatus(corev1.ConditionTrue)))
	stated, err := apps.ApplyStatus(t, status, metav1.ApplyOptions{FieldManager: "three", Force: true})
	if err != nil {
		return err
	}
	theirs, err := applyapps.ExtractDeploymentStatus(stated, "three")
	return first(err, equal("the status I own", *theirs.Status.Conditions[0].Type, appsv1.DeploymentConditionType("Interop")))
}

func applyManyKinds(t *setting) error {
	force := metav1.ApplyOptions{FieldManager: "one", Force: true}
	core := t.client.CoreV1()
	service := applycore.Service("web", t.namespace).WithSpec(applycore.ServiceSpec().
		WithSelector(map[string]string{"app": "web"}).
		WithPorts(applycore.ServicePort().WithName("http").WithPort(80), applycore.ServicePort().WithName("more").WithPort(81)))
	secret := applycore.Secret("s", t.namespace).WithData(map[string][]byte{"k": {0, 255}})
	account := applycore.ServiceAccount("robot", t.namespace).WithAutomountServiceAccountToken(false)
	pod := applycore.Pod("p", t.namespace).WithSpec(applycore.PodSpec().WithContainers(
		applycore.Container().WithName("main").WithImage("example/main:1")))
	for range 2 {
		made, err := core.Services(t.namespace).Apply(t, service, force)
		if err := first(err, equal("ports", len(made.Spec.Ports), 2)); err != nil {
			return err
		}
		held, err := core.Secrets(t.namespace).Apply(t, secret, force)
		if err := first(err, equal("bytes", held.Data["k"], []byte{0, 255})); err != nil {
			return err
		}
		if _, err := core.ServiceAccounts(t.namespace).Apply(t, account, force); err != nil {
			return err
		}
		if _, err := core.Pods(t.namespace).Apply(t, pod, force); err != nil {
			return err
		}
	}
	return nil
}

func retryOnConflict(t *setting) error {
	maps := t.client.CoreV1().ConfigMaps(t.namespace)
	if _, err := maps.Create(t, configMap("counter", map[string]string{}), metav1.CreateOptions{}); err != nil {
		return err
	}
	var group sync.WaitGroup
	failures := make([]error, 8)
	for at := range failures {
		group.Add(1)
		go func() {
			defer group.Done()
			backoff := retry.DefaultBackoff
			backoff.Steps = 30
			backoff.Factor = 1.2
			failures[at] = retry.RetryOnConflict(backoff, func() error {
				got, err := maps.Get(t, "counter", metav1.GetOptions{})
				if err != nil {
					return err
				}
				if got.Data == nil {
					got.Data = map[string]string{}
				}
				got.Data[fmt.Sprint(len(got.Data))] = fmt.Sprint(at)
				_, err = maps.Update(t, got, metav1.UpdateOptions{})
				return err
			})
		}()
	}
	group.Wait()
	got, err := maps.Get(t, "counter", metav1.GetOptions{})
	return first(first(failures...), err, equal("how many wrote", len(got.Data), len(failures)))
}

func scaleTyped(t *setting) error {
	apps := t.client.AppsV1().Deployments(t.namespace)
	if _, err := apps.Create(t, deployment("web", 1), metav1.CreateOptions{}); err != nil {
		return err
	}
	got, err := apps.GetScale(t, "web", metav1.GetOptions{})
	if err := first(
		err,
		equal("replicas", got.Spec.Replicas, int32(1)),
		equal("selector", got.Status.Selector, "app=web"),
	); err != nil {
		return err
	}
	for {
		got.Spec.Replicas = 2
		got, err = apps.UpdateScale(t, "web", got, metav1.UpdateOptions{})
		if !apierrors.IsConflict(err) {
			break
		}
		if got, err = apps.GetScale(t, "web", metav1.GetOptions{}); err != nil {
			return err
		}
	}
	if err := first(err, equal("replicas set", got.Spec.Replicas, int32(2))); err != nil {
		return err
	}
	wanted := applyscaling.Scale().WithSpec(applyscaling.ScaleSpec().WithReplicas(3))
	var set *autoscalingv1.Scale
	set, err = apps.ApplyScale(t, "web", wanted, metav1.ApplyOptions{FieldManager: "scaler", Force: true})
	if err := first(err, equal("replicas applied", set.Spec.Replicas, int32(3))); err != nil {
		return err
	}
	whole, err := apps.Get(t, "web", metav1.GetOptions{})
	return first(err, equal("replicas of the whole", *whole.Spec.Replicas, int32(3)))
}

// The count belongs to one manager, whether it was written by the whole object or by its scale.
func scaleOwnership(t *setting) error {
	apps := t.client.AppsV1().Deployments(t.namespace)
	if _, err := apps.Apply(t, applied("web", t), metav1.ApplyOptions{FieldManager: "one"}); err != nil {
		return err
	}
	wanted := applyscaling.Scale().WithSpec(applyscaling.ScaleSpec().WithReplicas(3))
	_, err := apps.ApplyScale(t, "web", wanted, metav1.ApplyOptions{FieldManager: "two"})
	if err := refused("another's count", err, apierrors.IsConflict); err != nil {
		return err
	}
	if _, err := apps.ApplyScale(t, "web", wanted, metav1.ApplyOptions{FieldManager: "two", Force: true}); err != nil {
		return err
	}
	_, err = apps.Apply(t, applied("web", t), metav1.ApplyOptions{FieldManager: "one"})
	if err := refused("the count that was taken", err, apierrors.IsConflict); err != nil {
		return err
	}
	rest := applied("web", t)
	rest.Spec.Replicas = nil
	got, err := apps.Apply(t, rest, metav1.ApplyOptions{FieldManager: "one"})
	return first(err, equal("replicas", *got.Spec.Replicas, int32(3)))
}

func scalePolymorphic(t *setting) error {
	if _, err := t.client.AppsV1().Deployments(t.namespace).Create(t, deployment("web", 0), metav1.CreateOptions{}); err != nil {
		return err
	}
	groups, err := restmapper.GetAPIGroupResources(t.client.Discovery())
	if err != nil {
		return err
	}
	mapper := restmapper.NewDiscoveryRESTMapper(groups)
	resolver := scale.NewDiscoveryScaleKindResolver(t.client.Discovery())
	scales, err := scale.NewForConfig(t.config, mapper, dynamic.LegacyAPIPathResolverFunc, resolver)
	if err != nil {
		return err
	}
	resource := appsv1.SchemeGroupVersion.WithResource("deployments")
	patch := []byte(`{"spec":{"replicas":4}}`)
	set, err := scales.Scales(t.namespace).Patch(t, resource, "web", types.MergePatchType, patch, metav1.PatchOptions{})
	if err := first(err, equal("replicas patched", set.Spec.Replicas, int32(4))); err != nil {
		return err
	}
	got, err := scales.Scales(t.namespace).Get(t, resource.GroupResource(), "web", metav1.GetOptions{})
	return first(err, equal("replicas", got.Spec.Replicas, int32(4)))
}

func rollout(t *setting) error {
	apps := t.client.AppsV1().Deployments(t.namespace)
	if _, err := apps.Create(t, deployment("web", 3), metav1.CreateOptions{}); err != nil {
		return err
	}
	available := func(image string) func() (bool, error) {
		return func() (bool, error) {
			got, err := apps.Get(t, "web", metav1.GetOptions{})
			return err == nil && got.Status.ObservedGeneration == got.Generation && got.Status.AvailableReplicas == 3 &&
				got.Status.UpdatedReplicas == 3 && got.Status.Replicas == 3 &&
				got.Spec.Template.Spec.Containers[0].Image == image, err
		}
	}
	if err := t.eventually("three are available", available("example/main:1")); err != nil {
		return err
	}
	patch := []byte(`{"spec":{"template":{"spec":{"containers":[{"name":"main","image":"example/main:2"}]}}}}`)
	if _, err := apps.Patch(t, "web", types.StrategicMergePatchType, patch, metav1.PatchOptions{}); err != nil {
		return err
	}
	return t.eventually("three new ones are available", available("example/main:2"))
}
