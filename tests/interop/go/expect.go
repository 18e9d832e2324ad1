package main

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
)

// first is the first error that there is.
func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func equal(what string, got, want any) error {
	if reflect.DeepEqual(got, want) {
		return nil
	}
	return fmt.Errorf("%s is %s, want %s", what, shown(got), shown(want))
}

// differing are the places where two values are not the same, as JSON.
func differing(path string, one, two any) []string {
	if equality.Semantic.DeepEqual(one, two) {
		return nil
	}
	var places []string
	switch one := one.(type) {
	case map[string]any:
		if two, is := two.(map[string]any); is {
			for key := range one {
				places = append(places, differing(path+"."+key, one[key], two[key])...)
			}
			for key := range two {
				if _, both := one[key]; !both {
					places = append(places, differing(path+"."+key, nil, two[key])...)
				}
			}
			return places
		}
	case []any:
		if two, is := two.([]any); is && len(one) == len(two) {
			for at := range one {
				places = append(places, differing(fmt.Sprintf("%s[%d]", path, at), one[at], two[at])...)
			}
			return places
		}
	}
	return []string{fmt.Sprintf("%s: %s, %s", path, shown(one), shown(two))}
}

// alike wants two objects that mean the same.
func alike(what string, one, two runtime.Object) error {
	if equality.Semantic.DeepEqual(one, two) {
		return nil
	}
	plainOne, errA := runtime.DefaultUnstructuredConverter.ToUnstructured(one)
	plainTwo, errB := runtime.DefaultUnstructuredConverter.ToUnstructured(two)
	if err := first(errA, errB); err != nil {
		return err
	}
	if places := differing("", plainOne, plainTwo); len(places) > 0 {
		return fmt.Errorf("%s: %s", what, strings.Join(places, "; "))
	}
	return fmt.Errorf("%s: %#v is not %#v", what, one, two)
}

func shown(value any) string {
	text, err := json.Marshal(value)
	if err != nil {
		return fmt.Sprintf("%v", value)
	}
	return string(text)
}

func holds(what string, condition bool) error {
	if condition {
		return nil
	}
	return fmt.Errorf("not so: %s", what)
}

// refused wants an error that `is` recognises.
func refused(what string, err error, is func(error) bool) error {
	if err == nil {
		return fmt.Errorf("%s was let through", what)
	}
	if !is(err) {
		return fmt.Errorf("%s was refused as %T %s: %s", what, err, shown(err), err.Error())
	}
	return nil
}

func (t *setting) eventually(what string, condition func() (bool, error)) error {
	var last error
	err := wait.PollUntilContextTimeout(t, 20*time.Millisecond, 20*time.Second, true, func(context.Context) (bool, error) {
		done, err := condition()
		last = err
		return done && err == nil, nil
	})
	if err != nil {
		return fmt.Errorf("%s: %w (last error: %v)", what, err, last)
	}
	return nil
}

// next is the next event that is no bookmark.
func (t *setting) next(events watch.Interface) (watch.Event, error) {
	for {
		select {
		case event, open := <-events.ResultChan():
			if !open {
				return event, fmt.Errorf("the watch ended")
			}
			if event.Type == watch.Error {
				return event, fmt.Errorf("the watch broke: %s", shown(event.Object))
			}
			if event.Type != watch.Bookmark {
				return event, nil
			}
		case <-time.After(10 * time.Second):
			return watch.Event{}, fmt.Errorf("no event in 10 seconds")
		}
	}
}

func configMap(name string, data map[string]string) *corev1.ConfigMap {
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": "interop"}}, Data: data,
	}
}

func podSpec() corev1.PodSpec {
	return corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: "example/main:1"}}}
}
