package main

import (
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// Who may do what, and tokens.
var access = []check{
	{"self-review", selfReview},
	{"access-review", accessReview},
	{"rules-review", rulesReview},
	{"impersonation", impersonation},
	{"token-request", tokenRequest},
	{"escalation", escalation},
}

func selfReview(t *setting) error {
	reviews := t.client.AuthenticationV1().SelfSubjectReviews()
	got, err := reviews.Create(t, &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	return first(err, holds("I have a name", got.Status.UserInfo.Username != ""))
}

func accessReview(t *setting) error {
	asked := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{
		ResourceAttributes: &authorizationv1.ResourceAttributes{Namespace: t.namespace, Verb: "create", Resource: "pods"},
	}}
	mine, err := t.client.AuthorizationV1().SelfSubjectAccessReviews().Create(t, asked, metav1.CreateOptions{})
	if err := first(err, equal("I may", mine.Status.Allowed, true)); err != nil {
		return err
	}
	other := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User: "nobody", ResourceAttributes: asked.Spec.ResourceAttributes,
	}}
	theirs, err := t.client.AuthorizationV1().SubjectAccessReviews().Create(t, other, metav1.CreateOptions{})
	if err := first(err, equal("nobody may", theirs.Status.Allowed, false)); err != nil {
		return err
	}
	local := &authorizationv1.LocalSubjectAccessReview{
		ObjectMeta: metav1.ObjectMeta{Namespace: t.namespace}, Spec: other.Spec,
	}
	here, err := t.client.AuthorizationV1().LocalSubjectAccessReviews(t.namespace).Create(t, local, metav1.CreateOptions{})
	return first(err, equal("nobody may here", here.Status.Allowed, false))
}

func rulesReview(t *setting) error {
	asked := &authorizationv1.SelfSubjectRulesReview{
		Spec: authorizationv1.SelfSubjectRulesReviewSpec{Namespace: t.namespace},
	}
	got, err := t.client.AuthorizationV1().SelfSubjectRulesReviews().Create(t, asked, metav1.CreateOptions{})
	return first(err, holds("there are rules", len(got.Status.ResourceRules) > 0), equal("incomplete", got.Status.Incomplete, false))
}

func impersonation(t *setting) error {
	config := rest.CopyConfig(t.config)
	config.Impersonate = rest.ImpersonationConfig{UserName: "jane", Groups: []string{"readers-" + t.namespace}}
	jane, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	_, before := jane.CoreV1().ConfigMaps(t.namespace).List(t, metav1.ListOptions{})
	if err := refused("jane", before, apierrors.IsForbidden); err != nil {
		return err
	}
	role := &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: "reader"}, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: []string{"list", "get"}},
	}}
	if _, err := t.client.RbacV1().Roles(t.namespace).Create(t, role, metav1.CreateOptions{}); err != nil {
		return err
	}
	binding := &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "readers"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "reader"},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.GroupKind, APIGroup: rbacv1.GroupName, Name: "readers-" + t.namespace}},
	}
	if _, err := t.client.RbacV1().RoleBindings(t.namespace).Create(t, binding, metav1.CreateOptions{}); err != nil {
		return err
	}
	if err := t.eventually("jane may read", func() (bool, error) {
		_, err := jane.CoreV1().ConfigMaps(t.namespace).List(t, metav1.ListOptions{})
		return err == nil, err
	}); err != nil {
		return err
	}
	_, err = jane.CoreV1().ConfigMaps(t.namespace).Create(t, configMap("no", nil), metav1.CreateOptions{})
	return refused("jane writing", err, apierrors.IsForbidden)
}

func tokenRequest(t *setting) error {
	accounts := t.client.CoreV1().ServiceAccounts(t.namespace)
	robot := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "robot"}}
	if _, err := accounts.Create(t, robot, metav1.CreateOptions{}); err != nil {
		return err
	}
	seconds := int64(900)
	asked := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &seconds}}
	issued, err := accounts.CreateToken(t, "robot", asked, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	ends := time.Until(issued.Status.ExpirationTimestamp.Time)
	if err := holds("it ends in 15 minutes", ends > 14*time.Minute && ends < 16*time.Minute); err != nil {
		return err
	}
	config := rest.AnonymousClientConfig(t.config)
	config.BearerToken = issued.Status.Token
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	name := "system:serviceaccount:" + t.namespace + ":robot"
	self, err := client.AuthenticationV1().SelfSubjectReviews().Create(t, &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if err := first(err, equal("who it is", self.Status.UserInfo.Username, name)); err != nil {
		return err
	}
	_, err = client.CoreV1().Secrets(t.namespace).List(t, metav1.ListOptions{})
	if err := refused("the robot", err, apierrors.IsForbidden); err != nil {
		return err
	}
	review := &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: issued.Status.Token}}
	reviewed, err := t.client.AuthenticationV1().TokenReviews().Create(t, review, metav1.CreateOptions{})
	return first(
		err,
		equal("authenticated", reviewed.Status.Authenticated, true),
		equal("who it is", reviewed.Status.User.Username, name),
	)
}

func escalation(t *setting) error {
	config := rest.CopyConfig(t.config)
	config.Impersonate = rest.ImpersonationConfig{UserName: "climber-" + t.namespace}
	climber, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	binding := &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "climber"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "admin"},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: config.Impersonate.UserName}},
	}
	if _, err := t.client.RbacV1().RoleBindings(t.namespace).Create(t, binding, metav1.CreateOptions{}); err != nil {
		return err
	}
	role := &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: "wide"}, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{"*"}, Resources: []string{"*"}, Verbs: []string{"*"}},
	}}
	_, err = climber.RbacV1().Roles(t.namespace).Create(t, role, metav1.CreateOptions{})
	return refused("more than one has", err, apierrors.IsForbidden)
}
